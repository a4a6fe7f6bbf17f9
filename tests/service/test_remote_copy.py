"""RemoteService in front of a copy of this app: nothing is lost on the way there and back."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace

import pytest

from falcon_mamba_app.api import generation
from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.protocol import (
    Accepted,
    ChoiceForm,
    Conversation,
    Finished,
    GenerationRequest,
    GenerationService,
    GrammarForm,
    JsonForm,
    Message,
    PrefillProgress,
    PromptScored,
    RegexForm,
    SamplingParams,
    Text,
    TextDelta,
    TokenIds,
    Waiting,
    sampling_field_names,
)
from falcon_mamba_app.service.remote.service import RemoteService
from tests.support.api_fixtures import on_loopback
from tests.support.echo_service import EchoService

CHAT = GenerationRequest(prompt=Conversation([Message("user", "hello")]))


async def events_of(service: GenerationService, request: GenerationRequest = CHAT) -> list:
    async with aclosing(service.generate(request)) as events:
        return [event async for event in events]


@pytest.fixture
async def copy():
    """EchoService behind its API, and a RemoteService in front of that."""
    behind = EchoService()
    await behind.start()
    async with on_loopback(create_api(behind)) as url:
        service = RemoteService(f"{url}/v1")
        await service.start()
        yield behind, service
        await service.close()


async def test_a_copy_of_this_app_tells_all_about_its_model(copy):
    behind, service = copy
    assert service.stats().model == behind.stats().model


async def test_a_copy_gets_the_same_request(copy):
    behind, service = copy
    sampling = SamplingParams(
        temperature=0.3,
        top_k=4,
        top_p=0.5,
        min_p=0.1,
        top_n_sigma=2.5,
        typical_p=0.9,
        xtc_probability=0.2,
        xtc_threshold=0.3,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        seed=-5,
        stop=("x", "y"),
        max_new_tokens=9,
        ignore_eos=True,
        min_tokens=2,
        stop_token_ids=(7,),
        logit_bias=((5, 1.5),),
        skip_special_tokens=False,
        logprobs=3,
    )
    assert all(getattr(sampling, n) != getattr(SamplingParams(), n) for n in sampling_field_names())
    for prompt in (CHAT.prompt, Text("a text"), TokenIds((1, 2, 3))):
        request = GenerationRequest(prompt=prompt, sampling=sampling)
        await events_of(service, request)
        assert replace(behind.requests[-1], owner="") == request
    told = Conversation(CHAT.prompt).with_template_kwargs({"style": "short"})
    await events_of(service, GenerationRequest(prompt=told))
    assert behind.requests[-1].prompt.template_kwargs == {"style": "short"}
    await events_of(service, GenerationRequest(prompt=Text("a"), sampling=SamplingParams()))
    assert behind.requests[-1].sampling == SamplingParams()


@pytest.mark.parametrize(
    "form",
    [
        JsonForm('{"type": "object"}'),
        JsonForm("{}", is_lenient=True),
        RegexForm("a+"),
        ChoiceForm(("a", "b")),
        GrammarForm('start: "a"'),
    ],
)
async def test_a_copy_is_asked_for_the_same_form(copy, form):
    behind, service = copy
    for prompt in (CHAT.prompt, Text("a text")):
        await events_of(service, GenerationRequest(prompt=prompt, form=form))
        assert behind.requests[-1].form == form


async def test_events_of_a_copy_are_those_of_the_service_behind_it(copy, monkeypatch):
    """What was reused is told with the first text; the rest of it at once, in a long wait."""
    monkeypatch.setattr(generation, "QUIET_S", 0.0)
    behind, service = copy
    request = GenerationRequest(prompt=Conversation([Message("user", "QUEUE hello")]))
    kinds = (Waiting, PrefillProgress, TextDelta)
    direct, through = [await events_of(s, request) for s in (behind, service)]
    assert [e for e in through if isinstance(e, kinds)] == [
        e for e in direct if isinstance(e, kinds)
    ]
    assert [type(e) for e in through] == [type(e) for e in direct]
    assert through[2] == Accepted(direct[2].prompt_tokens, None)
    assert through[-1].reused_tokens == direct[-1].reused_tokens


@pytest.mark.parametrize(
    ("prompt", "score_prompt"),  # a chat is not scored through a copy
    [(CHAT.prompt, None), (Text("a text"), None), (Text("a text"), 1), (TokenIds((1, 2)), 1)],
)
async def test_ids_of_a_copy_are_those_of_the_service_behind_it(
    copy, prompt, score_prompt, monkeypatch
):
    monkeypatch.setattr(generation, "QUIET_S", 0.0)
    behind, service = copy
    request = GenerationRequest(prompt=prompt, score_prompt=score_prompt, tells_ids=True)
    told = []
    for one in (behind, service):
        events = await events_of(one, request)
        (accepted,) = [event for event in events if isinstance(event, Accepted)]
        written = [i for e in events if isinstance(e, TextDelta) for i in e.token_ids]
        told.append((accepted.prompt_ids, written, events[-1].completion_tokens))
    assert told[0] == told[1] and told[0][0] and told[0][1]


async def test_scores_of_a_copy_are_those_of_the_service_behind_it(copy):
    behind, service = copy
    sampling = SamplingParams(max_new_tokens=1, logprobs=1)
    request = GenerationRequest(prompt=Text("one two"), sampling=sampling, score_prompt=2)
    (direct,) = [e for e in await events_of(behind, request) if isinstance(e, PromptScored)]
    through = await events_of(service, request)
    (scored,) = [e for e in through if isinstance(e, PromptScored)]
    assert [(t.token, t.logprob) for t in scored.tokens] == [
        (t.token, t.logprob) for t in direct.tokens
    ]
    assert isinstance(through[-1], Finished)
    assert [e.text for e in through if isinstance(e, TextDelta)] == ["and"]


async def test_32_replies_at_once_through_a_copy(copy):
    _, service = copy
    replies = await asyncio.gather(*(events_of(service) for _ in range(32)))
    texts = {"".join(e.text for e in r if isinstance(e, TextDelta)) for r in replies}
    assert texts == {"You said: hello"}


async def test_session_ids_are_not_in_the_log(copy, caplog):
    _, service = copy
    secret = "session-nobody-may-know"
    with caplog.at_level(logging.DEBUG):
        await events_of(service, GenerationRequest(prompt=Text("a"), session_id=secret))
        await service.export_state(secret)
    assert secret not in caplog.text
