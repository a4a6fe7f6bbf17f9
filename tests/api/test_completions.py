"""/v1/completions: prompts in four forms, echo and scoring, the legacy log-probabilities."""

from __future__ import annotations

import httpx
import pytest

from falcon_mamba_app.api.answers import CompletionFormat
from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.protocol import GenerationRequest, PromptScored, TokenIds, TokenLogprob
from tests.support.api_fixtures import sse_values

URL = "/v1/completions"


async def complete(client: httpx.AsyncClient, **fields: object) -> dict:
    response = await client.post(URL, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_completion_has_the_shape_of_openai(client, service):
    answer = await complete(client, prompt="a b c")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert choice.pop("prompt_logprobs") is None  # vLLM's, always there as with vLLM
    assert choice == {"index": 0, "text": "and so on.", "logprobs": None, "finish_reason": "stop"}
    assert answer["usage"]["prompt_tokens"] == 3
    assert service.requests[-1].sampling.max_new_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a b", ["a b"]),
        (["a b", "c"], ["a b", "c"]),
        ([5, 6], [(5, 6)]),
        ([[5, 6], [7]], [(5, 6), (7,)]),
    ],
)
async def test_a_prompt_comes_in_four_forms(client, service, prompt, expected):
    answer = await complete(client, prompt=prompt)
    assert sorted(map(str, (r.prompt for r in service.requests))) == sorted(map(str, expected))
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(expected)))


async def test_choices_are_ordered_by_prompt_then_reply(client):
    answer = await complete(client, prompt=["a", "b c"], n=2, echo=True)
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == ["aand so on."] * 2 + ["b cand so on."] * 2
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 12


async def test_log_probabilities_have_the_legacy_shape(client):
    answer = await complete(client, prompt="a", logprobs=2)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["and", " so", " on."],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [
            {name: -0.5, "alt0": -0.5, "alt1": -1.5} for name in ("and", " so", " on.")
        ],
        "text_offset": [0, 3, 6],
    }


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_echo_with_logprobs_scores_the_prompt(client, max_tokens):
    answer = await complete(client, prompt="one two", echo=True, logprobs=1, max_tokens=max_tokens)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["one", " two", "and"][: 2 + max_tokens]
    assert logprobs["token_logprobs"][:2] == [None, -0.5]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == [0, 3, 7][: 2 + max_tokens]
    assert answer["choices"][0]["text"] == "one two" + "and" * max_tokens


async def test_scoring_with_one_token_always_gets_that_token(client, service):
    """A client that cuts off the one new token would otherwise cut off one of the prompt's."""
    await complete(client, prompt="one two", echo=True, logprobs=1, max_tokens=1)
    assert service.requests[-1].sampling.ignore_eos
    assert service.requests[-1].score_prompt == 1


async def test_every_prompt_of_a_batch_is_scored(client):
    answer = await complete(client, prompt=[[1, 2, 3], [4, 5]], echo=True, logprobs=1, max_tokens=1)
    sizes = [len(choice["logprobs"]["token_logprobs"]) for choice in answer["choices"]]
    assert sizes == [4, 3]


async def test_echoed_token_ids_are_shown_as_text(client):
    answer = await complete(client, prompt=[5, 6], echo=True, max_tokens=0)
    assert answer["choices"][0]["text"] == "t5 t6"
    assert answer["choices"][0]["logprobs"] is None


async def test_echo_without_logprobs_scores_nothing(client, service):
    answer = await complete(client, prompt="a b", echo=True, max_tokens=1)
    assert answer["choices"][0]["text"] == "a band"
    assert service.requests[-1].score_prompt is None


async def test_a_stream_carries_the_same_text_and_logprobs_as_one_answer(client):
    fields = {"prompt": "one two", "echo": True, "logprobs": 1, "max_tokens": 3}
    whole = (await complete(client, **fields))["choices"][0]
    response = await client.post(URL, json={**fields, "stream": True})
    values = sse_values(response.text)
    assert values.pop() == "[DONE]"
    choices = [value["choices"][0] for value in values]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    parts = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    for name, joined in whole["logprobs"].items():
        assert [item for part in parts for item in part[name]] == joined
    assert {value["object"] for value in values} == {"text_completion"}


async def test_max_tokens_0_echoes_the_prompt_and_nothing_more(client):
    answer = await complete(client, prompt="a b", max_tokens=0, echo=True)
    assert answer["choices"][0]["text"] == "a b"
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("fields", [{"suffix": ""}, {"best_of": 1}, {"best_of": 2, "n": 2}])
async def test_fields_that_ask_for_nothing_are_accepted(client, fields):
    await complete(client, prompt="a", **fields)


def test_tokens_that_are_no_text_alone_keep_distinct_names_and_right_offsets():
    halves = [TokenLogprob(i, "\ufffd", b, -1.0) for i, b in enumerate((b"\xc3", b"\xa9"))]
    tokens = (TokenLogprob(7, "caf", b"caf", None), *halves, TokenLogprob(8, "!", b"!", -2.0))
    shape = CompletionFormat(echo=True, logprobs=0)
    request = GenerationRequest(prompt=TokenIds((7, 0, 1, 8)), score_prompt=0)
    reply = PlannedReply(index=0, prompt_index=0, request=request)
    (choice,) = shape.chunks(reply, PromptScored(tokens))
    assert choice["text"] == "café!"
    assert choice["logprobs"]["tokens"] == ["caf", "bytes:\\xc3", "bytes:\\xa9", "!"]
    assert choice["logprobs"]["text_offset"] == [0, 3, 3, 4]
