"""/v1/responses through OpenAI's own client: kept, continued, streamed, cancelled, deleted."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest
from pydantic import BaseModel

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import on_loopback, openai_client, until

ANNA, TOM = "key-of-anna", "key-of-tom"


@pytest.fixture
async def url(service):
    async with on_loopback(create_api(service, api_keys=(ANNA, TOM))) as url:
        yield f"{url}/v1"


@pytest.fixture
async def client(url):
    async with openai_client(url, ANNA) as client:
        yield client


@pytest.fixture
async def toms(url):
    async with openai_client(url, TOM) as client:
        yield client


def prompts(service) -> list[list[str]]:
    return [[message.content for message in request.prompt] for request in service.requests]


async def test_a_response_is_answered_and_kept(client):
    made = await client.responses.create(
        model="echo", input="hello there", metadata={"a": "b"}, user="u", temperature=0.5
    )
    assert made.output_text == "You said: hello there"
    assert (made.status, made.output[0].status, made.object) == (
        "completed",
        "completed",
        "response",
    )
    assert (made.usage.input_tokens, made.usage.output_tokens) == (2, 4)
    assert made.usage.input_tokens_details.cached_tokens == 0
    assert (made.metadata, made.user, made.temperature) == ({"a": "b"}, "u", 0.5)
    assert (made.top_p, made.truncation, made.tools, made.error) == (0.9, "disabled", [], None)
    found = await client.responses.retrieve(made.id)
    assert found.to_dict() == made.to_dict()


async def test_any_earlier_response_goes_on(client, service):
    first = await client.responses.create(model="echo", input="one")
    second = await client.responses.create(model="echo", input="two", previous_response_id=first.id)
    branch = await client.responses.create(
        model="echo", input="three", previous_response_id=first.id
    )
    await client.responses.create(model="echo", input="four", previous_response_id=second.id)
    assert prompts(service) == [
        ["one"],
        ["one", "You said: one", "two"],
        ["one", "You said: one", "three"],
        ["one", "You said: one", "two", "You said: two", "four"],
    ]
    assert len({request.session_id for request in service.requests}) == 1
    assert branch.previous_response_id == first.id
    assert branch.usage.input_tokens_details.cached_tokens > 0


async def test_instructions_are_each_requests_own(client, service):
    first = await client.responses.create(model="echo", input="one", instructions="Be brief.")
    assert first.instructions == "Be brief."
    after = {"previous_response_id": first.id}
    await client.responses.create(model="echo", input="two", instructions="Be long.", **after)
    await client.responses.create(model="echo", input="three", **after)
    assert prompts(service)[1:] == [
        ["Be long.", "one", "You said: one", "two"],
        ["one", "You said: one", "three"],
    ]


async def test_input_is_items_of_every_form_and_is_listed(client, service):
    earlier = await client.responses.create(model="echo", input="zero")
    made = await client.responses.create(
        model="echo",
        input=[
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
            *[item.model_dump(exclude_none=True) for item in earlier.output],
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "two"},
                    {"type": "input_text", "text": "three"},
                ],
            },
        ],
    )
    roles = [message.role for message in service.requests[-1].prompt]
    assert roles == ["system", "user", "assistant", "user"]
    assert prompts(service)[-1][-1] == "two\nthree"
    items = [item async for item in client.responses.input_items.list(made.id, order="asc")]
    assert [item.role for item in items] == ["developer", "user", "assistant", "user"]
    assert [part.text for part in items[-1].content] == ["two", "three"]
    newest = await client.responses.input_items.list(made.id, limit=1)
    assert (newest.data[0].id, newest.has_more) == (items[-1].id, True)
    page = await client.responses.input_items.list(made.id, limit=2, after=items[2].id)
    assert [item.id for item in page.data] == [items[1].id, items[0].id]
    assert not page.has_more


async def test_the_stream_has_openais_events_in_order_and_numbered(client):
    stream = await client.responses.create(model="echo", input="hello there", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 4,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0].response.output == [] and events[0].response.status == "in_progress"
    assert events[-1].response.output_text == "You said: hello there"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "You said: hello there"
    again = await client.responses.retrieve(events[-1].response.id, stream=True, starting_after=5)
    assert [event.to_dict() async for event in again] == [e.to_dict() for e in events[6:]]


async def test_openais_stream_helper_assembles_the_response(client):
    async with client.responses.stream(model="echo", input="hello there") as stream:
        snapshots = [e.snapshot async for e in stream if e.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots[-1] == final.output_text == "You said: hello there"


async def test_openais_parse_helper_reads_a_reply_in_the_form_that_it_asked_for(client, service):
    class Answer(BaseModel):
        number: int

    parsed = await client.responses.parse(
        model="echo", input='SAY {"number":5}', text_format=Answer
    )
    assert parsed.output_parsed == Answer(number=5)
    assert "number" in service.requests[-1].form.schema
    assert parsed.text.format.name == "Answer"
    with pytest.raises(ValueError, match="Answer"):
        await client.responses.parse(model="echo", input="SAY no", text_format=Answer)


async def test_logprobs_come_where_they_are_included(client):
    made = await client.responses.create(
        model="echo", input="hi", include=["message.output_text.logprobs"], top_logprobs=2
    )
    tokens = made.output[0].content[0].logprobs
    assert [token.token for token in tokens] == ["You", " said:", " hi"]
    assert len(tokens[0].top_logprobs) == 2
    again = await client.responses.retrieve(made.id)
    assert again.output[0].content[0].logprobs == tokens


async def test_a_short_reply_is_incomplete_and_goes_on(client, service):
    made = await client.responses.create(model="echo", input="LONG", max_output_tokens=3)
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.max_output_tokens == 3
    stream = await client.responses.create(
        model="echo", input="LONG", max_output_tokens=1, stream=True, previous_response_id=made.id
    )
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_what_is_not_stored_cannot_be_found_or_continued(client, service):
    made = await client.responses.create(model="echo", input="hi", store=False)
    assert made.output_text == "You said: hi" and made.store is False
    assert service.requests[-1].session_id is None and service.requests[-1].reuse_id is None
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="echo", input="x", previous_response_id=made.id)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


async def test_another_owners_response_is_as_if_it_had_never_been(client, toms):
    made = await client.responses.create(model="echo", input="secret")
    for call in (
        toms.responses.retrieve(made.id),
        toms.responses.retrieve(made.id, stream=True),
        toms.responses.delete(made.id),
        toms.responses.cancel(made.id),
        toms.responses.input_items.list(made.id),
    ):
        with pytest.raises(openai.NotFoundError, match="not found"):
            await call
    with pytest.raises(openai.BadRequestError):
        await toms.responses.create(model="echo", input="x", previous_response_id=made.id)
    assert (await client.responses.retrieve(made.id)).id == made.id


async def test_a_response_in_the_background_is_fetched_followed_and_cancelled(client, service):
    made = await client.responses.create(model="echo", input="LONG SLOW", background=True)
    assert (made.status, made.background) == ("queued", True)
    stream = await client.responses.retrieve(made.id, stream=True)
    seen = []
    async for event in stream:
        seen.append(event)
        if len(seen) == 7:
            break
    assert [e.type for e in seen[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    await stream.close()
    assert (await client.responses.retrieve(made.id)).status == "in_progress"
    with pytest.raises(openai.BadRequestError, match="in_progress"):
        await client.responses.create(model="echo", input="x", previous_response_id=made.id)
    cancelled = await client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert (await client.responses.cancel(made.id)).status == "cancelled"
    await until(lambda: service.running == 0)
    kept = await client.responses.retrieve(made.id)
    assert (kept.status, kept.output_text) == ("cancelled", cancelled.output_text)
    rest = await client.responses.retrieve(made.id, stream=True, starting_after=6)
    numbers = [event.sequence_number async for event in rest]
    assert numbers[0] == 7 and numbers == list(range(7, 7 + len(numbers)))


async def test_a_response_in_the_background_ends_by_itself_whoever_has_left(client, url):
    made = await client.responses.create(model="echo", input="hi", background=True)

    async def status() -> str:
        return (await client.responses.retrieve(made.id)).status

    while await status() in ("queued", "in_progress"):
        await asyncio.sleep(0.005)
    assert await status() == "completed"


async def test_a_reader_who_leaves_ends_the_reply_and_what_it_wrote_can_go_on(client, service):
    stream = await client.responses.create(model="echo", input="LONG SLOW", stream=True)
    response_id = (await anext(aiter(stream))).response.id
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    await until(lambda: service.running == 0)
    while (kept := await client.responses.retrieve(response_id)).status == "in_progress":
        await asyncio.sleep(0.005)
    assert kept.status == "cancelled" and kept.output_text.startswith("word")
    await client.responses.create(model="echo", input="so", previous_response_id=response_id)
    assert prompts(service)[-1] == ["LONG SLOW", kept.output_text, "so"]


async def test_failures_are_a_status_before_the_first_word_and_an_event_after_it(client):
    with pytest.raises(openai.BadRequestError, match="20000|at most"):
        await client.responses.create(model="echo", input="word " * 20_001)
    stream = await client.responses.create(model="echo", input="BREAK it please", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert "device failed" in events[-1].response.error.message
    kept = await client.responses.retrieve(events[-1].response.id)
    assert (kept.status, kept.output_text) == ("failed", "You said:")
    with pytest.raises(openai.BadRequestError, match="is failed"):
        await client.responses.create(model="echo", input="x", previous_response_id=kept.id)
    with pytest.raises(openai.InternalServerError, match="device failed"):
        await client.responses.create(model="echo", input="BREAK it please")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "x", "temperature": 11}, "temperature"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata"),
        ({"input": "x", "metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"input": "x", "include": ["everything"]}, "include"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "max_output_tokens": 10**6}, "max_output_tokens"),
        ({"input": "x", "truncation": "middle"}, "truncation"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "response_format.type"),
        ({"input": "x", "text": "short"}, "text"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "conversation": "c", "previous_response_id": "r"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_nothing"}, "previous_response_id"),
        ({"input": "x", "wrong_field": 5}, "wrong_field"),
    ],
)
async def test_what_is_wrong_is_named(client, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="echo", extra_body=fields)
    assert refused.value.param == param


async def test_wrong_queries_are_named(client, url):
    made = await client.responses.create(model="echo", input="hi")
    headers = {"Authorization": f"Bearer {ANNA}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as raw:
        for query, param in (
            ("limit=0", "limit"),
            ("limit=x", "limit"),
            ("order=up", "order"),
            ("after=msg_1", "after"),
        ):
            answer = await raw.get(f"/responses/{made.id}/input_items?{query}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        answer = await raw.get(f"/responses/{made.id}?stream=true&starting_after=-1")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


async def test_a_deleted_response_is_gone_and_what_followed_goes_on_without_it(client, service):
    first = await client.responses.create(model="echo", input="one")
    second = await client.responses.create(model="echo", input="two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)
    await client.responses.create(model="echo", input="three", previous_response_id=second.id)
    assert prompts(service)[-1] == ["two", "You said: two", "three"]
    assert first.id not in service.sessions
    await client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(second.id)


async def test_openais_plain_client_works_too(url):
    def ask() -> str:
        with openai.OpenAI(base_url=url, api_key=ANNA) as client:
            first = client.responses.create(model="echo", input="one")
            with client.responses.stream(
                model="echo", input="two", previous_response_id=first.id
            ) as stream:
                return stream.get_final_response().output_text

    assert await asyncio.to_thread(ask) == "You said: two"
