"""Two visitors on one server: the second tries everything to reach what is the first one's."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from falcon_mamba_app.api.access import Access
from falcon_mamba_app.ui.gradio_patches import memory
from tests.support.api_fixtures import until
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import Page, serving
from tests.ui.test_page import CONTROLS

SECRET = "the-word-that-only-ada-knows"
CHAT = "/v1/chat/completions"
# Behind a proxy that is trusted, each client comes from an address of its own.
BEHIND_A_PROXY = ("--trusted-proxies", "127.0.0.1")
DOORS = pytest.mark.parametrize(
    "options", [(), ("--auth", "user:password", "--api-key", "key-of-ada,key-of-bert")]
)


@asynccontextmanager
async def two_visitors(service: EchoService, *options: str):
    """Ada and Bert, signed in where the server asks for it."""
    async with serving(*BEHIND_A_PROXY, *options, service=service) as port:
        base = f"http://127.0.0.1:{port}"
        clients = []
        for number, name in enumerate(("ada", "bert")):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            if "--auth" in options:
                headers["Authorization"] = f"Bearer key-of-{name}"
            clients.append(httpx.AsyncClient(base_url=base, headers=headers, timeout=60))
        async with clients[0] as ada, clients[1] as bert:
            for client in clients if "--auth" in options else ():
                form = {"username": "user", "password": "password"}
                assert (await client.post("/login", data=form)).is_success
            yield ada, bert


@pytest.fixture
def service():
    return EchoService()


async def page_of(client: httpx.AsyncClient, session_hash: str = "") -> Page:
    page = Page(client, (await client.get("/config")).json(), session_hash)
    await page.cause("page", "load", None, None, False)
    return page


async def all_sent(client: httpx.AsyncClient, path: str, **options: Any) -> str:
    """What the server says before it ends or breaks off, as Gradio does where it knows nothing."""
    sent = ""
    async with client.stream("GET", path, **options) as response:
        with suppress(httpx.RemoteProtocolError):
            async for text in response.aiter_text():
                sent += text
    return sent


@DOORS
async def test_a_name_of_a_session_reaches_only_ones_own(service, options):
    async with two_visitors(service, *options) as (ada, bert):
        body = {"messages": [{"role": "user", "content": SECRET}], "prompt_cache_key": "talk"}
        assert (await ada.post(CHAT, json=body)).is_success
        state = "/v1/sessions/talk/state"
        assert (await bert.get(state)).status_code == 404
        assert (await bert.delete("/v1/sessions/talk")).status_code == 404  # he has none
        assert (await bert.put(state, content=b"echo:999")).is_success
        assert (await ada.get(state)).content == b"echo:4"  # her word and three of the reply
        answer = (await bert.post(CHAT, json=body)).json()
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert (await ada.post(CHAT, json=body)).json()["usage"]["prompt_tokens_details"] == {
            "cached_tokens": 0
        }
    owners = {request.session_id for request in service.requests}
    assert len(owners) == 2


@DOORS
async def test_ids_that_the_service_uses_open_nothing_over_the_api(service, options):
    """Even who has read the process's memory cannot name another's session."""
    async with two_visitors(service, *options) as (ada, bert):
        body = {"messages": [{"role": "user", "content": SECRET}], "prompt_cache_key": "talk"}
        await ada.post(CHAT, json=body)
        (session_id,) = service.sessions
        assert (await bert.get(f"/v1/sessions/{session_id}/state")).status_code == 404
        page = await page_of(bert)
        stolen = {"id": session_id, "messages": []}
        shown = await page.cause("page", "load", stolen, None, False)
        assert SECRET not in shown and session_id not in shown


@DOORS
async def test_a_pages_conversation_is_not_reached_by_guessing(service, options):
    async with two_visitors(service, *options) as (ada, bert):
        hers = await page_of(ada)
        reply = await hers.cause("composer", "submit", f"{SECRET} hello", *CONTROLS)
        assert SECRET in reply
        event_id = json.loads(reply.partition("data: ")[2].partition("\n")[0])["event_id"]
        his = await page_of(bert)
        seen = []
        for guess in ("", hers.session_hash[:-1], hers.session_hash.upper(), "0", "null", "*"):
            params = {"session_hash": guess}
            seen.append(await all_sent(bert, "/gradio_api/queue/data", params=params))
            stolen = {"id": guess, "messages": []}
            seen.append(await his.cause("page", "load", stolen, None, False))
            seen.append(await his.cause("refresh", "click"))
        for guess in (event_id, event_id[:-1] + "0", "0" * 32):
            for path in ("call/chat", "call/v2/chat", "stream", "file="):
                seen.append(await all_sent(bert, f"/gradio_api/{path}/{guess}"))
        for client in (bert, ada):
            api = await client.post("/gradio_api/call/chat", json={"data": ["hello"] + [None] * 5})
            call = f"/gradio_api/call/chat/{api.json()['event_id']}"
            seen.append(await all_sent(client, call))
        assert "hello" in seen[-1]  # the walk does reach something: one's own
        assert not [text for text in seen if SECRET in text]


@DOORS
async def test_another_pages_reply_is_not_stopped_by_guessing(service, options):
    async with two_visitors(service, *options) as (ada, bert):
        hers = await page_of(ada)
        writing = asyncio.create_task(
            hers.cause("composer", "submit", f"LONG SLOW {SECRET}", *CONTROLS)
        )
        await until(lambda: service.running == 1)
        his = await page_of(bert)
        config = (await bert.get("/config")).json()
        await his.cause("clear", "click")
        for index in hers.events.values():
            for guess in (hers.session_hash[:-1], his.session_hash):
                body = {"session_hash": guess, "fn_index": index, "event_id": "0" * 32}
                assert (await bert.post("/gradio_api/cancel", json=body)).status_code == 200
        await bert.post("/gradio_api/reset", json={"event_id": "0" * 32})
        for guess in (hers.session_hash[:-1], "0"):
            async with bert.stream("GET", f"/gradio_api/heartbeat/{guess}") as heartbeat:
                await anext(heartbeat.aiter_lines())
            await Page(bert, config, guess).at_once("stop", "click")
        assert service.running == 1
        assert not writing.done()
        await hers.at_once("stop", "click")  # her own hash is all it takes
        await asyncio.wait_for(writing, timeout=60)
        assert service.running == 0


@DOORS
async def test_files_are_served_to_nobody(service, options, tmp_path):
    file = tmp_path / "of-ada.txt"
    file.write_text(SECRET)
    async with two_visitors(service, *options) as (ada, bert):
        for client in (ada, bert):
            upload = await client.post("/gradio_api/upload", files={"files": SECRET.encode()})
            assert upload.status_code == 404
            for path in (
                f"file={file}",
                f"file/{file}",
                "file=/proc/self/environ",
                f"file=../../../..{file}",
                f"proxy=file://{file}",
                "deep_link?session_hash=1",
                "custom_component/1/client/component/x.js",
            ):
                response = await client.get(f"/gradio_api/{path}")
                assert response.status_code == 404
                assert SECRET not in response.text
        for path in (f"/static/../../../../../../..{file}", f"/assets/..%2f..%2f..%2f..{file}"):
            response = await ada.get(path)
            assert SECRET not in response.text
            assert response.status_code in (403, 404)


async def test_nothing_of_a_visitor_may_be_cached_on_the_way(service):
    async with two_visitors(service) as (ada, _):
        body = {"messages": [{"role": "user", "content": SECRET}], "prompt_cache_key": "talk"}
        await ada.post(CHAT, json=body)
        for path in ("/v1/sessions/talk/state", "/", "/config", "/v1/models", "/metrics"):
            assert (await ada.get(path)).headers["cache-control"] == "no-store", path


def test_names_of_sessions_cannot_be_guessed():
    ids = {Access(()).session_id("", "talk") for _ in range(100)}
    assert len(ids) == 100
    # Of 256 bits each; before them stands the owner's name, which another process names otherwise.
    assert {len(session_id.partition(".")[2]) for session_id in ids} == {64}
    assert len({session_id.partition(".")[0] for session_id in ids}) == 100


async def test_no_number_of_pages_pushes_out_one_that_reads_its_reply(service, monkeypatch):
    """Gradio kept the messages of 2,000 pages, and dropped those of the one known for longest: so
    many strangers' events ended everybody's replies.
    """
    monkeypatch.setattr(memory, "MAX_READERS", 50)
    async with two_visitors(service, "--visitor-requests-per-minute", "0") as (ada, bert):
        hers = await page_of(ada)
        writing = asyncio.create_task(hers.cause("composer", "submit", "LONG SLOW", *CONTROLS))
        await until(lambda: service.running == 1)
        config = (await bert.get("/config")).json()
        for _ in range(60):
            assert (await Page(bert, config).begin("undo", "click")).is_success
        assert not writing.done()
        await hers.at_once("stop", "click")
        assert '"success":true' in (await asyncio.wait_for(writing, timeout=60))
