"""A book is read once and answers ever after, as if it had been read each time."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.protocol import GenerationRequest, SamplingParams, TokenIds
from tests.support.api_fixtures import in_process
from tests.support.services import collect, make_local_service, reply_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "The miller kept a red lamp in the cellar. His sister Mira had a blue boat. " * 8
CHAT = "/v1/chat/completions"
ASK = {
    "messages": [{"role": "user", "content": "Where is the lamp?"}],
    "temperature": 0,
    "cache_prompt": False,  # or the second time more than the book would be known
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    service = make_local_service()
    await service.start()
    yield service
    await service.close()


@pytest_asyncio.fixture(loop_scope="module")
async def client(service):
    app = create_api(service, api_keys=("key-of-anna", "key-of-tom"))
    async with in_process(app, headers={"Authorization": "Bearer key-of-anna"}) as client:
        yield client
    await app.state.books.close()


async def read(client, text: str = TEXT, name: str = "mill.txt") -> dict:
    """A book, read to its end."""
    answer = await client.post("/v1/books", json={"text": text, "name": name})
    assert answer.status_code == 200, answer.text
    return await ended(client, answer.json()["id"])


async def ended(client, book_id: str) -> dict:
    while True:
        book = (await client.get(f"/v1/books/{book_id}")).json()
        if book["status"] != "reading":
            return book
        await asyncio.sleep(0.01)


def cached(answer) -> int:
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    return (usage.get("prompt_tokens_details") or usage["input_tokens_details"])["cached_tokens"]


async def test_a_book_is_counted_before_anything_is_spent_and_then_read(client, service):
    before = service.stats().requests_total
    asked = {"text": TEXT * 40, "name": "mill.txt", "dry_run": True}
    counted = (await client.post("/v1/books", json=asked)).json()
    assert (counted["status"], counted["id"]) == ("counted", None)
    assert "that the model was trained on" in counted["warning"] and counted["tokens"] > 4_000
    assert service.stats().requests_total == before
    book = await read(client)
    assert (book["status"], book["progress"]) == ("ready", 1.0)
    assert book["tokens"] == book["tokens_read"] > 100
    assert [one["id"] for one in (await client.get("/v1/books")).json()["data"]] == [book["id"]]
    assert (await client.get(f"/v1/books/{book['id']}/text")).text == TEXT.strip()
    again = await client.post("/v1/books", json={"text": TEXT, "name": "mill.txt"})
    assert again.json()["id"] == book["id"], "the same text is not read twice"


async def test_every_endpoint_begins_from_the_book_without_reading_it(client):
    book = await read(client)
    on = {"book": book["id"]}
    for _ in range(2):
        assert cached(await client.post(CHAT, json={**ASK, **on})) == book["tokens"]
    plain = {"prompt": " Mira", "max_tokens": 4, "cache_prompt": False, **on}
    assert cached(await client.post("/v1/completions", json=plain)) == book["tokens"]
    response = await client.post("/v1/responses", json={"input": "Who?", **on})
    assert cached(response) == book["tokens"]
    later = {"input": "Why?", "previous_response_id": response.json()["id"]}
    assert cached(await client.post("/v1/responses", json=later)) > book["tokens"]


async def test_an_answer_on_a_book_is_that_of_a_cold_request_with_the_same_ids(client, service):
    book = await read(client)
    asked = {**ASK, "book": book["id"], "return_token_ids": True, "max_tokens": 24}
    warm = (await client.post(CHAT, json=asked)).json()
    ids = TokenIds(warm["prompt_token_ids"])
    assert len(ids) > book["tokens"]
    greedy = SamplingParams(temperature=0.0, max_new_tokens=24)
    cold = await collect(service, GenerationRequest(prompt=ids, sampling=greedy))
    assert cold[-1].reused_tokens == 0
    assert reply_text(cold) == warm["choices"][0]["message"]["content"]


async def test_a_book_is_its_owners_and_gone_when_it_is_deleted(client):
    book = await read(client)
    path, tom = f"/v1/books/{book['id']}", {"Authorization": "Bearer key-of-tom"}
    assert (await client.get(path, headers=tom)).status_code == 404
    assert (await client.delete(path, headers=tom)).status_code == 404
    foreign = await client.post(CHAT, json={**ASK, "book": book["id"]}, headers=tom)
    assert (foreign.status_code, "no book" in foreign.text) == (404, True)
    refused = await client.post(path, json={"is_shared": True})
    assert (refused.status_code, "only a kept book" in refused.text) == (400, True)
    assert (await client.delete(path)).json()["deleted"]
    assert (await client.post(CHAT, json={**ASK, "book": book["id"]})).status_code == 404


async def test_a_stopped_book_is_a_shorter_one_that_can_be_read_on(client):
    long = "One more page of the long story about the mill and its owner. " * 80
    begun = (await client.post("/v1/books", json={"text": long, "name": "long.txt"})).json()
    path = f"/v1/books/{begun['id']}"
    busy = await client.post("/v1/books", json={"text": "Another text.", "name": "b.txt"})
    assert (busy.status_code, "is being read" in busy.text) == (429, True)
    early = await client.post(CHAT, json={**ASK, "book": begun["id"]})
    assert (early.status_code, "still being read" in early.text) == (400, True)
    short = (await client.post(f"{path}/cancel")).json()
    assert short["status"] == "stopped" and 0 < short["tokens"] < short["tokens_in_text"]
    assert cached(await client.post(CHAT, json={**ASK, "book": begun["id"]})) == short["tokens"]
    await client.post(f"{path}/resume")
    whole = await ended(client, begun["id"])
    assert (whole["status"], whole["tokens"]) == ("ready", short["tokens_in_text"])
    assert cached(await client.post(CHAT, json={**ASK, "book": begun["id"]})) == whole["tokens"]


async def test_books_in_a_row_are_read_once_each_and_another_order_is_another_state(
    client, service
):
    mill, sea = await read(client), await read(client, "The sea is cold in March. " * 20, "sea.txt")
    row = [mill["id"], sea["id"]]
    counted = (await client.post("/v1/books", json={"books": row, "dry_run": True})).json()
    assert (counted["name"], counted["kind"]) == ("mill.txt, then sea.txt", "books")
    assert counted["tokens"] > mill["tokens"] + sea["tokens"]
    before = cached(await client.post(CHAT, json={**ASK, "book": row}))
    assert before == mill["tokens"], "until the row is a book, its first book spares the most"
    begun = (await client.post("/v1/books", json={"books": row})).json()
    assert begun["books"] == row and begun["tokens_read"] >= mill["tokens"]
    both = await ended(client, begun["id"])
    assert (both["status"], both["tokens"]) == ("ready", counted["tokens"])
    asked = {**ASK, "max_tokens": 16, "return_token_ids": True}
    warm = await client.post(CHAT, json={**asked, "book": both["id"]})
    assert cached(warm) == both["tokens"]
    named = await client.post(CHAT, json={**asked, "book": row})
    assert cached(named) == both["tokens"], "a row that was read is found by its books"
    other = await client.post(CHAT, json={**asked, "book": row[::-1]})
    assert cached(other) == sea["tokens"], "another order is another state"
    ids = TokenIds(warm.json()["prompt_token_ids"])
    greedy = SamplingParams(temperature=0.0, max_new_tokens=16)
    cold = await collect(service, GenerationRequest(prompt=ids, sampling=greedy))
    assert reply_text(cold) == warm.json()["choices"][0]["message"]["content"]
    text = service.tokenizer.decode(ids)
    assert text.index("red lamp") < text.index("I have read it.") < text.index("cold in March")
    again = await client.post("/v1/books", json={"books": row})
    assert again.json()["id"] == both["id"], "the same row is not read twice"


async def test_a_row_of_books_says_what_it_takes(client):
    book = (await read(client))["id"]
    for wrong in ([book, book], [book], [book] * 9):
        refused = await client.post("/v1/books", json={"books": wrong})
        assert refused.status_code == 400, refused.text
    for wrong in ([], [1], 5, [book] * 9, [""]):
        refused = await client.post(CHAT, json={**ASK, "book": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "book")
    for body in ({}, {"text": "a", "books": [book, "b"]}):
        refused = await client.post("/v1/books", json=body)
        assert (refused.status_code, "either text" in refused.text) == (400, True)
    missing = await client.post(CHAT, json={**ASK, "book": [book, "book_nowhere"]})
    assert (missing.status_code, "no book" in missing.text) == (404, True)
