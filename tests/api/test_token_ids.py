"""Token ids, scores of the prompt and special tokens, in vLLM's shapes, on the bundled model."""

from __future__ import annotations

import math

import pytest
import pytest_asyncio

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import USER, in_process, sse_values
from tests.support.services import make_local_service

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = {"messages": [USER], "max_tokens": 12, "seed": 1}
PROMPT = {"prompt": "The weather today is", "max_tokens": 12, "seed": 1}
EITHER = pytest.mark.parametrize(("url", "body"), [(CHAT, MESSAGES), (COMPLETIONS, PROMPT)])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client():
    service = make_local_service(max_running=4)
    await service.start()
    async with in_process(create_api(service)) as client:
        yield client
    await service.close()


async def answer(client, url, body, **fields):
    response = await client.post(url, json={**body, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def read_back(client, token_ids):
    return (await client.post("/detokenize", json={"tokens": token_ids})).json()["prompt"]


def shown_in(choice):
    return choice["text"] if "text" in choice else choice["message"]["content"]


@EITHER
async def test_ids_of_prompt_and_reply_are_those_that_were_read_and_written(client, url, body):
    told = await answer(client, url, body, return_token_ids=True)
    choice = told["choices"][0]
    prompt_ids = (told if url == CHAT else choice)["prompt_token_ids"]
    asked = {name: body[name] for name in ("messages", "prompt") if name in body}
    assert prompt_ids == (await client.post("/tokenize", json=asked)).json()["tokens"]
    assert len(choice["token_ids"]) == told["usage"]["completion_tokens"]
    assert (await read_back(client, choice["token_ids"])).startswith(shown_in(choice))


async def test_a_text_is_tokenised_under_llama_cpps_name_too(client):
    for name in ("content", "prompt"):
        told = (await client.post("/tokenize", json={name: PROMPT["prompt"]})).json()
        assert (await read_back(client, told["tokens"])) == PROMPT["prompt"], name


@EITHER
async def test_a_stream_tells_the_prompts_ids_once_and_each_of_the_replys(client, url, body):
    whole = await answer(client, url, body, return_token_ids=True, n=2)
    fields = {**body, "return_token_ids": True, "n": 2, "stream": True}
    chunks = sse_values((await client.post(url, json=fields)).text)[:-1]
    for index in range(2):
        mine = [chunk for chunk in chunks if chunk["choices"][0]["index"] == index]
        first = mine[0] if url == CHAT else mine[0]["choices"][0]
        others = mine[1:] if url == CHAT else [chunk["choices"][0] for chunk in mine[1:]]
        expected = whole if url == CHAT else whole["choices"][0]
        assert first["prompt_token_ids"] == expected["prompt_token_ids"]
        assert all("prompt_token_ids" not in other for other in others)
        ids = [i for chunk in mine for i in chunk["choices"][0]["token_ids"]]
        if index == 0:
            assert ids == whole["choices"][0]["token_ids"]


async def test_ids_that_went_out_come_in_as_the_same_prompt(client):
    told = await answer(client, COMPLETIONS, PROMPT, return_token_ids=True)
    ids = told["choices"][0]["prompt_token_ids"]
    again = await answer(client, COMPLETIONS, {**PROMPT, "prompt": ids}, return_token_ids=True)
    assert again["choices"][0]["token_ids"] == told["choices"][0]["token_ids"]


@EITHER
async def test_ids_and_scores_are_not_told_unasked(client, url, body):
    told = await answer(client, url, body)
    choice = told["choices"][0]
    assert not {"token_ids", "prompt_token_ids"} & {*told, *choice}
    assert (told if url == CHAT else choice)["prompt_logprobs"] is None


@EITHER
@pytest.mark.parametrize("num_top", [0, 3])
async def test_each_token_of_the_prompt_has_its_score_and_rank(client, url, body, num_top):
    told = await answer(client, url, body, prompt_logprobs=num_top, return_token_ids=True, n=2)
    for choice in told["choices"]:
        beside = told if url == CHAT else choice
        first, *scores = beside["prompt_logprobs"]
        assert first is None and len(scores) == len(beside["prompt_token_ids"]) - 1
        for token_id, entries in zip(beside["prompt_token_ids"][1:], scores, strict=True):
            own = entries[str(token_id)]
            assert own.keys() == {"logprob", "rank", "decoded_token"}
            assert max(num_top, 1) <= len(entries) <= num_top + 1
            ranked = sorted(entries.values(), key=lambda entry: entry["rank"])
            assert [e["rank"] for e in ranked[:num_top]] == [*range(1, num_top + 1)]
            assert ranked == sorted(ranked, key=lambda entry: -entry["logprob"])


@EITHER
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_tokens_beside_logprobs_are_named_by_their_ids_on_demand(
    client, url, body, is_streamed
):
    asked = {"logprobs": True, "top_logprobs": 2} if url == CHAT else {"logprobs": 2, "echo": True}
    fields = {**body, **asked, "return_token_ids": True, "return_tokens_as_token_ids": True}
    if is_streamed:
        response = await client.post(url, json={**fields, "stream": True})
        choices = [chunk["choices"][0] for chunk in sse_values(response.text)[:-1]]
    else:
        choices = (await answer(client, url, fields))["choices"]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    if url == CHAT:
        entries = [entry for part in told for entry in part["content"]]
        names = [entry["token"] for entry in entries]
        others = [other["token"] for entry in entries for other in entry["top_logprobs"]]
    else:
        names = [name for part in told for name in part["tokens"]]
        others = [name for part in told for top in part["top_logprobs"] for name in top or ()]
    ids = [token_id for choice in choices for token_id in choice.get("token_ids", ())]
    assert names[-len(ids) :] == [f"token_id:{token_id}" for token_id in ids]
    assert others and all(name.startswith("token_id:") for name in others)


async def test_scores_of_a_prompt_are_those_of_its_echo_and_each_has_its_own_width(client):
    told = await answer(client, COMPLETIONS, PROMPT, prompt_logprobs=4, echo=True, logprobs=1)
    choice = told["choices"][0]
    assert choice["text"].startswith(PROMPT["prompt"])
    assert all(len(top) <= 2 for top in choice["logprobs"]["top_logprobs"] if top)
    _, *scores = choice["prompt_logprobs"]
    echoed = choice["logprobs"]["token_logprobs"][1 : 1 + len(scores)]
    for entries, logprob in zip(scores, echoed, strict=True):
        assert any(math.isclose(entry["logprob"], logprob) for entry in entries.values())
        assert len(entries) in (4, 5)


async def test_a_prompt_is_scored_without_a_reply(client):
    told = await answer(client, COMPLETIONS, PROMPT, prompt_logprobs=0, max_tokens=0)
    assert told["choices"][0]["text"] == "" and len(told["choices"][0]["prompt_logprobs"]) > 3


@EITHER
@pytest.mark.parametrize(
    "fields", [{"prompt_logprobs": 1, "stream": True}, {"prompt_logprobs": -1}]
)
async def test_scores_that_cannot_be_told_are_refused_by_their_name(client, url, body, fields):
    error = (await client.post(url, json={**body, **fields})).json()["error"]
    assert error["param"] == "prompt_logprobs" and "prompt_logprobs is" in error["message"]


@EITHER
async def test_special_tokens_are_shown_where_they_are_asked_for_but_never_the_end(
    client, url, body
):
    special = (await client.post("/tokenize", json={"prompt": "<|im_start|>"})).json()["tokens"][-1]
    forced = {**body, "logit_bias": {str(special): 100}, "max_tokens": 3, "return_token_ids": True}
    hidden = await answer(client, url, forced)
    shown = await answer(client, url, forced, skip_special_tokens=False)
    assert shown_in(hidden["choices"][0]) == ""
    assert shown_in(shown["choices"][0]) == "<|im_start|>" * 3
    for choice in (hidden["choices"][0], shown["choices"][0]):
        assert choice["token_ids"] == [special] * 3
    ended = await answer(client, url, {**body, "max_tokens": 60}, skip_special_tokens=False)
    assert "<|im_end|>" not in shown_in(ended["choices"][0])


async def test_a_chats_echo_is_the_begun_words_before_the_reply(client):
    begun = {"role": "assistant", "content": "Once upon"}
    body = {**MESSAGES, "messages": [USER, begun]}
    plain = shown_in((await answer(client, CHAT, body))["choices"][0])
    assert shown_in((await answer(client, CHAT, body, echo=True))["choices"][0]) == (
        "Once upon" + plain
    )
    chunks = sse_values((await client.post(CHAT, json={**body, "echo": True, "stream": True})).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Once upon" + plain
    unbegun = await answer(client, CHAT, MESSAGES, echo=True)
    assert shown_in(unbegun["choices"][0]) == shown_in(
        (await answer(client, CHAT, MESSAGES))["choices"][0]
    )
