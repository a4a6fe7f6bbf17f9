"""Responses over the bundled model: the state goes on, and so it does after a restart."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import openai
import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.library import Library, Place
from falcon_mamba_app.owners import THIS_MACHINE, Owners
from falcon_mamba_app.settings import Settings
from falcon_mamba_app.state_store.objects import MEMORY, open_store
from tests.support.api_fixtures import on_loopback
from tests.support.echo_service import EchoService
from tests.support.services import files_in, make_local_service

ASKED = {"model": "nano", "temperature": 0.0, "max_output_tokens": 12}


@pytest.fixture
async def service():
    files = files_in(open_store(MEMORY))
    service = make_local_service(max_prompt_tokens=400, open_files=files)
    await service.start()
    yield service
    await service.close()


async def conversation_of(url: str, response_id: str) -> str:
    """The session that the response is in."""
    async with httpx.AsyncClient(base_url=url) as raw:
        for session in (await raw.get("/v1/sessions")).json()["data"]:
            tree = (await raw.get(f"/v1/sessions/{session['id']}")).json()
            if response_id in [message["id"] for message in tree["messages"]]:
                return str(session["id"])
    raise AssertionError(f"{response_id} is in no session")


async def test_a_turn_reads_only_what_is_new_and_says_the_same_as_all_of_it(service, tmp_path):
    """Over the ids in memory, over those in the library after a restart, and by a branch."""
    place = Place(folder=tmp_path)
    library = await Library.open(place)
    async with (
        on_loopback(create_api(service, keeping=Keeping(Owners(Settings()), library))) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        first = await client.responses.create(input="Tell me a story of a dog.", **ASKED)
        second = await client.responses.create(
            input="And then?", previous_response_id=first.id, **ASKED
        )
        before = first.usage.input_tokens + first.usage.output_tokens - 1
        assert second.usage.input_tokens_details.cached_tokens == before
        branch = await client.responses.create(input="Why?", previous_response_id=first.id, **ASKED)
        assert branch.usage.input_tokens_details.cached_tokens == before
        count = await client.responses.input_tokens.count(
            model="nano", input="Why?", previous_response_id=first.id
        )
        assert count.input_tokens == branch.usage.input_tokens
        session = f"/v1/sessions/{await conversation_of(url, first.id)}"
        path, pinned = f"{session}/state", service._kept._files._index._pinned
        async with httpx.AsyncClient(base_url=url) as raw:
            newest, early = [
                len((await raw.get(path, params=query)).content)
                for query in ({}, {"message_id": first.id})
            ]
            assert early < newest  # fewer ids beside a state of the same size
            lost = await raw.get(path, params={"message_id": "resp_none"})
            assert lost.status_code == 404
            # A named moment has its state in the store, until it loses its name.
            for name in ("once", "twice"):
                await raw.put(f"{session}/branches/{name}", json={"message_id": first.id})
            assert [state.num_tokens for state in pinned] == [before]
            await raw.delete(f"{session}/branches/once")
            assert len(pinned) == 1
            await raw.delete(f"{session}/branches/twice")
            assert len(pinned) == 0
        messages = [
            {"role": "user", "content": "Tell me a story of a dog."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "Why?"},
        ]
        cold = await client.chat.completions.create(
            model="nano", messages=messages, temperature=0.0, max_tokens=12
        )
        assert cold.choices[0].message.content == branch.output_text
    await library.close()
    library = await Library.open(place)
    async with (
        on_loopback(create_api(service, keeping=Keeping(Owners(Settings()), library))) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert (await client.responses.retrieve(second.id)).to_dict() == second.to_dict()
        third = await client.responses.create(
            input="And then?", previous_response_id=branch.id, **ASKED
        )
        before = branch.usage.input_tokens + branch.usage.output_tokens - 1
        assert third.usage.input_tokens_details.cached_tokens == before
    await library.close()


async def test_truncation_drops_the_oldest_items_where_that_is_allowed(service):
    async with (
        on_loopback(create_api(service)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        items = [{"role": "user", "content": f"{i} " + "dog " * 40} for i in range(12)]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(input=items, **ASKED)
        assert refused.value.code == "context_length_exceeded"
        made = await client.responses.create(
            input=items, truncation="auto", instructions="Be brief.", **ASKED
        )
        assert made.truncation == "auto" and 300 < made.usage.input_tokens <= 400


async def until_kept(library: Library, response_id: str) -> None:
    """Return once the library has words of the response."""
    async with asyncio.timeout(30):
        while True:
            with suppress(NotFound):
                if (await library.message(THIS_MACHINE, response_id)).text:
                    return
            await asyncio.sleep(0.01)


async def test_a_response_in_the_background_that_a_crash_broke_is_failed_at_once_with_its_words(
    tmp_path,
):
    service = EchoService()
    await service.start()
    place = Place(folder=tmp_path)

    def app_over(library):
        return create_api(service, keeping=Keeping(Owners(Settings()), library))

    library = await Library.open(place)
    async with on_loopback(app_over(library)) as url, httpx.AsyncClient(base_url=url) as client:
        body = {"input": "LONG SLOW", "background": True}
        response_id = (await client.post("/v1/responses", json=body)).json()["id"]
        path = f"/v1/responses/{response_id}"
        await until_kept(library, response_id)
        await library.close()  # as the end of the process does
        again = await Library.open(place)
        async with on_loopback(app_over(again)) as other:
            for answer in (
                await client.get(f"{other}{path}"),
                await client.post(f"{other}{path}/cancel"),
            ):
                found = answer.json()
                assert (answer.status_code, found["status"]) == (200, "failed"), answer.text
                assert found["error"]["message"] == "the server stopped in mid-reply"
            assert found["output"][0]["content"][0]["text"]
            assert (await client.delete(f"{other}{path}")).json()["deleted"]
        await again.close()


async def test_a_session_moves_as_a_zip_and_goes_on_without_being_read_again(service, tmp_path):
    """To another server with the same model; an own file of another model costs a sentence."""
    elsewhere = make_local_service(max_prompt_tokens=400)
    await elsewhere.start()
    libraries = [await Library.open(Place(folder=tmp_path / name)) for name in ("here", "there")]
    here, there = (
        create_api(one, keeping=Keeping(Owners(Settings()), library))
        for one, library in zip((service, elsewhere), libraries, strict=True)
    )
    async with on_loopback(here) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"input": "Tell me a story of a dog.", **ASKED}
        first = (await client.post("/v1/responses", json=body)).json()
        session_id = await conversation_of(url, first["id"])
        body = {"input": "And then?", "conversation": session_id, **ASKED}
        second = (await client.post("/v1/responses", json=body)).json()
        path = f"/v1/sessions/{session_id}/export?format=zip"
        file = (await client.get(path)).content
        assert (await client.post("/v1/sessions/import", content=file)).json()["num_states"] == 1
    async with on_loopback(there) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = (await client.post("/v1/sessions/import", content=file)).json()
        assert (answer["num_states"], answer["states_problem"]) == (1, None)
        body = {"input": "Why?", "conversation": answer["data"][0]["id"], **ASKED}
        third = (await client.post("/v1/responses", json=body)).json()
    read_before = second["usage"]["total_tokens"] - 1
    assert third["usage"]["input_tokens_details"]["cached_tokens"] == read_before
    for library in libraries:
        await library.close()
    await elsewhere.close()
