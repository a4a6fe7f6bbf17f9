"""The GenerationService's contract, the same for every implementation.

An implementation is a context manager that yields a service not started yet; adding one is a line
in IMPLEMENTATIONS.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import (
    EngineFailure,
    InvalidRequest,
    NotFound,
    NotReady,
    PromptTooLong,
)
from falcon_mamba_app.protocol import (
    Accepted,
    ChoiceForm,
    Conversation,
    Finished,
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    Message,
    PromptScored,
    RegexForm,
    SamplingParams,
    Text,
    TextDelta,
    TokenIds,
)
from falcon_mamba_app.service.remote.service import RemoteService
from tests.support.api_fixtures import on_loopback, until
from tests.support.echo_service import EchoService

Implementation = Callable[[], AbstractAsyncContextManager[GenerationService]]

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6, ignore_eos=True)
HELLO = Conversation([Message("user", "hello there my friend")])
LONG = GenerationRequest(
    prompt=Conversation([Message("user", "LONG SLOW")]),
    sampling=replace(GREEDY, max_new_tokens=400),
)


@asynccontextmanager
async def echo() -> AsyncGenerator[GenerationService, None]:
    yield EchoService()


@asynccontextmanager
async def remote_echo() -> AsyncGenerator[GenerationService, None]:
    """A copy of this app's API over EchoService, reached through the loopback."""
    behind = EchoService()
    await behind.start()
    async with on_loopback(create_api(behind, api_keys=("a-key",))) as url:
        yield RemoteService(f"{url}/v1", api_key="a-key")


@asynccontextmanager
async def local() -> AsyncGenerator[GenerationService, None]:
    """The bundled model in this process."""
    from falcon_mamba_app.service.local.build import build_local
    from falcon_mamba_app.settings import EngineSettings, ModelSettings

    model = ModelSettings(model="nano", device="cpu")
    yield build_local(model, EngineSettings(max_prompt_tokens=2_000))


@asynccontextmanager
async def zero_gpu() -> AsyncGenerator[GenerationService, None]:
    """The bundled model as on ZeroGPU, undecorated: its replies run in this process, and no loan's
    time is ever up.
    """
    from falcon_mamba_app.service.zero_gpu.build import build_borrowing
    from falcon_mamba_app.service.zero_gpu.service import PageOnly
    from falcon_mamba_app.settings import EngineSettings, ModelSettings

    model = ModelSettings(model="nano", device="cpu")
    limits = EngineSettings(max_prompt_tokens=2_000)
    # The clock stands still: a busy machine ends no reply.
    service = build_borrowing(model, limits, lend=lambda run: run, clock=lambda: 0.0)
    yield PageOnly(service, lambda: True)


IMPLEMENTATIONS: list[Implementation] = [echo, remote_echo, local, zero_gpu]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
async def new_service(request):
    async with request.param() as service:
        yield service
        await service.close()


@pytest.fixture
async def service(new_service):
    await new_service.start()
    return new_service


async def events_of(service: GenerationService, request: GenerationRequest):
    async with aclosing(service.generate(request)) as events:
        return [event async for event in events]


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def chat(*contents: str, session_id: str | None = None) -> GenerationRequest:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    messages = Conversation(Message(roles[i % 2], text) for i, text in enumerate(contents))
    return GenerationRequest(prompt=messages, sampling=GREEDY, session_id=session_id)


async def test_nothing_is_generated_before_start_or_after_close(new_service):
    assert new_service.stats().status == "loading"
    with pytest.raises(NotReady):
        await events_of(new_service, chat("hello"))
    await new_service.start()
    assert new_service.stats().status == "ready"
    await new_service.close()
    assert new_service.stats().status == "failed"
    with pytest.raises(EngineFailure):
        await events_of(new_service, chat("hello"))


async def test_a_reply_has_its_form_and_a_wrong_form_is_refused(service):
    """EchoService writes what it always writes, so only what is asked of it is seen."""
    sampling = SamplingParams(temperature=1.0, max_new_tokens=60)
    request = replace(chat("hello there"), sampling=sampling, form=ChoiceForm(("Lisbon", "Rome")))
    events = await events_of(service, request)
    assert isinstance(events[-1], Finished)
    if service.tokenizer is not None:
        assert text_of(events) in ("Lisbon", "Rome")
        with pytest.raises(InvalidRequest, match="unclosed group"):
            await events_of(service, replace(request, form=RegexForm("(")))


async def test_events_come_in_order(service):
    request = GenerationRequest(prompt=Text("one two three"), sampling=GREEDY, score_prompt=1)
    for asked in (chat("hello there"), request):
        names = "".join(type(event).__name__ + " " for event in await events_of(service, asked))
        order = r"(Waiting )*Accepted (PrefillProgress )*(PromptScored )?(TextDelta )+Finished "
        assert re.fullmatch(order, names), names
        assert ("PromptScored" in names) == (asked.score_prompt is not None)


async def test_counts_agree_from_the_first_event_to_the_last(service):
    events = await events_of(service, chat("hello there my friend"))
    accepted = next(event for event in events if isinstance(event, Accepted))
    counts = [event.completion_tokens for event in events if isinstance(event, TextDelta)]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert accepted.prompt_tokens == finished.prompt_tokens > 0
    assert accepted.reused_tokens == finished.reused_tokens == 0
    assert counts == sorted(counts) and counts[-1] <= finished.completion_tokens
    assert finished.ttft_s > 0


async def test_a_reply_ends_at_its_length_limit(service):
    request = GenerationRequest(prompt=HELLO, sampling=replace(GREEDY, max_new_tokens=3))
    finished = (await events_of(service, request))[-1]
    assert (finished.reason, finished.completion_tokens) == ("length", 3)


async def test_a_reply_ends_before_a_stop_string(service):
    text = text_of(await events_of(service, GenerationRequest(prompt=HELLO, sampling=GREEDY)))
    stop = text[text.rindex(" ") :]
    stopped = GenerationRequest(prompt=HELLO, sampling=replace(GREEDY, stop=(stop,)))
    events = await events_of(service, stopped)
    assert text_of(events) == text[: text.index(stop)]
    assert events[-1].reason == "stop"


async def test_a_session_that_comes_back_is_not_read_again(service):
    reply = text_of(await events_of(service, chat("hello", session_id="s")))
    again = (await events_of(service, chat("hello", reply, "go on", session_id="s")))[-1]
    other = (await events_of(service, chat("hello", reply, "go on", session_id="t")))[-1]
    assert again.reused_tokens > 0
    assert other.reused_tokens == 0
    assert again.prompt_tokens >= other.prompt_tokens > again.reused_tokens


async def test_an_aside_reads_from_the_session_and_leaves_it_as_it_was(service):
    reply = text_of(await events_of(service, chat("hello", session_id="s")))
    before = await service.import_state("before", await service.export_state("s"))
    aside = replace(chat("hello", reply, "a title?", session_id="s"), is_aside=True)
    await events_of(service, aside)
    assert await service.import_state("after", await service.export_state("s")) == before
    again = (await events_of(service, chat("hello", reply, "go on", session_id="s")))[-1]
    assert again.reused_tokens > 0
    await events_of(service, replace(chat("hello", session_id="t"), is_aside=True))
    with pytest.raises(NotFound):
        await service.export_state("t")


async def test_a_state_travels_and_is_forgotten(service):
    await events_of(service, chat("hello", session_id="s"))
    data = await service.export_state("s")
    assert await service.import_state("copy", data) > 0
    assert await asyncio.wrap_future(service.forget("s"))
    with pytest.raises(NotFound):
        await service.export_state("s")
    assert await service.export_state("copy")


async def test_forgetting_tells_whether_there_was_such_a_session(service):
    await events_of(service, chat("hello", session_id="s"))
    outcomes = [await asyncio.wrap_future(service.forget(name)) for name in ("s", "s", "t")]
    assert outcomes == [True, False, False]


async def test_what_is_no_state_is_refused(service):
    with pytest.raises(NotFound):
        await service.export_state("never seen")
    with pytest.raises(InvalidRequest):
        await service.import_state("s", b"nonsense")


async def test_closing_the_stream_ends_the_work(service):
    async with aclosing(service.generate(LONG)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        assert service.stats().running == 1
    await until(lambda: service.stats().running == 0)


async def test_closing_the_service_ends_open_streams(service):
    events = service.generate(LONG)
    await anext(events)
    await service.close()
    with pytest.raises(EngineFailure):
        async for _ in events:
            pass


async def test_what_is_not_allowed_is_refused_and_leaves_nothing_behind(service):
    limit = service.stats().model.max_prompt_tokens
    with pytest.raises(InvalidRequest):
        await events_of(service, GenerationRequest(prompt=Conversation(), sampling=GREEDY))
    with pytest.raises(PromptTooLong, match=str(limit)):
        await events_of(service, chat("word " * (limit + 1)))
    assert service.stats().running == 0


async def test_log_probabilities_tell_every_token_once(service):
    sampling = replace(GREEDY, max_new_tokens=4, logprobs=2)
    events = await events_of(service, GenerationRequest(prompt=HELLO, sampling=sampling))
    tokens = [t for event in events if isinstance(event, TextDelta) for t in event.logprobs]
    assert len(tokens) == events[-1].completion_tokens == 4
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in tokens)
    assert b"".join(token.token_bytes for token in tokens).decode() == text_of(events)


@pytest.mark.parametrize("prompt", [Text("one two three"), TokenIds((5, 6, 7))])
async def test_a_prompt_is_scored_token_by_token(service, prompt):
    sampling = replace(GREEDY, max_new_tokens=1)
    request = GenerationRequest(prompt=prompt, sampling=sampling, score_prompt=2)
    events = await events_of(service, request)
    (scored,) = [event for event in events if isinstance(event, PromptScored)]
    assert len(scored.tokens) == events[-1].prompt_tokens >= 3
    assert scored.tokens[0].logprob is None
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in scored.tokens[1:])


async def test_replies_at_the_same_time_do_not_mix(service):
    requests = [chat("red apples"), chat("blue skies above"), chat("green")]
    alone = [text_of(await events_of(service, request)) for request in requests]
    together = await asyncio.gather(*(events_of(service, request) for request in requests))
    assert [text_of(events) for events in together] == alone
