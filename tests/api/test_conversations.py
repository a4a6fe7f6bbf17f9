"""/v1/conversations through OpenAI's own client."""

from __future__ import annotations

import openai
import pytest

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import on_loopback, openai_client, until

ANNA, TOM = "key-of-anna", "key-of-tom"
USER = {"type": "message", "role": "user", "content": "one"}


@pytest.fixture
async def url(service):
    async with on_loopback(create_api(service, api_keys=(ANNA, TOM))) as url:
        yield f"{url}/v1"


@pytest.fixture
async def client(url):
    async with openai_client(url, ANNA) as client:
        yield client


async def texts(client, conversation_id) -> list[str]:
    items = client.conversations.items.list(conversation_id, order="asc")
    return [item.content[0].text async for item in items]


async def test_a_conversation_is_made_found_changed_and_deleted(client):
    made = await client.conversations.create(metadata={"topic": "x"})
    assert (made.object, made.metadata) == ("conversation", {"topic": "x"})
    changed = await client.conversations.update(made.id, metadata={"topic": "y"})
    assert (await client.conversations.retrieve(made.id)).metadata == changed.metadata
    assert changed.metadata == {"topic": "y"}
    gone = await client.conversations.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError, match="not found"):
        await client.conversations.retrieve(made.id)


async def test_items_are_added_listed_found_and_deleted(client):
    made = await client.conversations.create(items=[USER])
    added = await client.conversations.items.create(
        made.id,
        items=[
            {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
            {"role": "user", "content": "three"},
        ],
    )
    assert [item.role for item in added.data] == ["assistant", "user"]
    assert await texts(client, made.id) == ["one", "two", "three"]
    newest = await client.conversations.items.list(made.id, limit=1)
    assert newest.data[0].id == added.last_id and newest.has_more
    found = await client.conversations.items.retrieve(added.first_id, conversation_id=made.id)
    assert found.content[0].text == "two"
    left = await client.conversations.items.delete(added.first_id, conversation_id=made.id)
    assert left.id == made.id
    assert await texts(client, made.id) == ["one", "three"]
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.retrieve(added.first_id, conversation_id=made.id)


async def test_responses_go_on_from_a_conversation_and_add_to_it(client, service):
    made = await client.conversations.create(items=[USER])
    for text in ("two", "three"):
        response = await client.responses.create(model="echo", input=text, conversation=made.id)
        assert response.conversation.id == made.id
    prompt = [message.content for message in service.requests[-1].prompt]
    assert prompt == ["one", "two", "You said: two", "three"]
    assert await texts(client, made.id) == [*prompt, "You said: three"]
    items = client.conversations.items.list(made.id, order="asc")
    ids = {item.content[0].text: item.id async for item in items}
    assert ids["You said: three"] == response.output[0].id
    await client.conversations.items.delete(ids["You said: two"], conversation_id=made.id)
    await client.responses.create(model="echo", input="four", conversation={"id": made.id})
    prompt = [message.content for message in service.requests[-1].prompt]
    assert prompt == ["one", "two", "three", "You said: three", "four"]


async def test_one_response_of_a_conversation_is_written_at_a_time(client, service):
    made = await client.conversations.create()
    slow = await client.responses.create(
        model="echo", input="LONG SLOW", conversation=made.id, background=True
    )
    with pytest.raises(openai.ConflictError) as refused:
        await client.responses.create(model="echo", input="x", conversation=made.id)
    assert refused.value.code == "conversation_locked"
    await client.responses.cancel(slow.id)
    await until(lambda: service.running == 0)
    await client.responses.create(model="echo", input="x", conversation=made.id)


async def test_a_response_that_fails_adds_nothing_to_its_conversation(client):
    made = await client.conversations.create(items=[USER])
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="echo", input="BREAK it now", conversation=made.id)
    assert await texts(client, made.id) == ["one"]


async def test_another_owners_conversation_is_as_if_it_had_never_been(client, url):
    made = await client.conversations.create(items=[USER])
    item = (await client.conversations.items.list(made.id)).data[0]
    async with openai_client(url, TOM) as toms:
        for call in (
            toms.conversations.retrieve(made.id),
            toms.conversations.update(made.id, metadata={}),
            toms.conversations.delete(made.id),
            toms.conversations.items.list(made.id),
            toms.conversations.items.create(made.id, items=[USER]),
            toms.conversations.items.retrieve(item.id, conversation_id=made.id),
            toms.conversations.items.delete(item.id, conversation_id=made.id),
            toms.responses.create(model="echo", input="x", conversation=made.id),
        ):
            with pytest.raises(openai.NotFoundError, match="not found"):
                await call
    assert await texts(client, made.id) == ["one"]


async def test_too_many_items_at_once_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="20 at a time"):
        await client.conversations.create(items=[USER] * 21)
