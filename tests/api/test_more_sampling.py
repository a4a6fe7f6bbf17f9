"""Fields of local servers that steer a reply, and replies that somebody has begun."""

from __future__ import annotations

import pytest

from falcon_mamba_app.engine.events import Admitted, Sampled
from falcon_mamba_app.engine.runner.model_runner import SampledToken
from falcon_mamba_app.protocol import (
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    TextDelta,
    TokenIds,
)
from falcon_mamba_app.service.local.stream import Stream
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.api_fixtures import USER
from tests.support.checkpoints import make_tokenizer

CHAT = "/v1/chat/completions"
BEGUN = {"role": "assistant", "content": "Once upon"}


async def test_biases_least_lengths_and_stop_tokens_reach_the_service(client, service):
    fields = {"logit_bias": {"5": -100, "7": 2.5}, "min_tokens": 3, "stop_token_ids": [9, 11]}
    for url, body in ((CHAT, {"messages": [USER]}), ("/v1/completions", {"prompt": "a"})):
        answer = await client.post(url, json={**body, **fields})
        assert answer.status_code == 200, answer.text
        sampling = service.requests[-1].sampling
        assert sampling.logit_bias == ((5, -100.0), (7, 2.5))
        assert (sampling.min_tokens, sampling.stop_token_ids) == (3, (9, 11))


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"hello": 1}},
        {"logit_bias": {"5": 101}},
        {"logit_bias": {"5": "x"}},
        {"logit_bias": {str(i): 1 for i in range(1_025)}},
        {"min_tokens": -1},
        {"min_tokens": 9, "max_tokens": 8},
        {"stop_token_ids": [-1]},
        {"stop_token_ids": ["x"]},
    ],
)
async def test_what_makes_no_sense_there_is_refused_by_name(client, fields):
    answer = await client.post(CHAT, json={"messages": [USER], **fields})
    assert answer.status_code == 400
    assert next(iter(fields)) in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
    ],
)
async def test_a_reply_that_was_begun_is_continued(client, service, fields):
    answer = await client.post(CHAT, json={"messages": [USER, BEGUN], **fields})
    assert answer.status_code == 200, answer.text
    assert service.requests[-1].prompt[-1] == Message("assistant", "Once upon")


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([USER, BEGUN], {"continue_final_message": False}),
        ([USER, BEGUN], {"add_generation_prompt": True}),
        ([USER], {"continue_final_message": True}),
        ([USER], {"add_generation_prompt": False}),
    ],
)
async def test_a_wish_that_contradicts_the_last_message_is_refused(client, messages, fields):
    answer = await client.post(CHAT, json={"messages": messages, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in fields


def test_a_stop_token_ends_the_reply_and_is_not_seen():
    backend = make_tokenizer().backend_tokenizer
    hello, world = (backend.encode(text).ids[0] for text in ("Hello", " world"))
    sampling = SamplingParams(stop_token_ids=(world,))
    request = GenerationRequest(prompt=TokenIds((1,)), sampling=sampling)
    stream = Stream(1, request, [1], vocabulary=Vocabulary(backend), started_s=0.0)
    told = stream._translate(Admitted(1, 0), 0.0)
    for token_id in (hello, world):
        told += stream._translate(Sampled(1, SampledToken(token_id)), 0.0)
    text = "".join(event.text for event in told if isinstance(event, TextDelta))
    assert text == Vocabulary(backend).decode([hello])
    assert isinstance(told[-1], Finished) and told[-1].reason == "stop"
    assert told[-1].completion_tokens == 2
