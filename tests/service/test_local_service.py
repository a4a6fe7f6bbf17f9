"""The service over a real engine: the bundled model, in fp32 where answers are compared."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from contextlib import aclosing

import pytest
import torch
from safetensors.torch import load as load_tensors

from falcon_mamba_app.errors import (
    EngineFailure,
    InvalidRequest,
    NotFound,
    NotReady,
    NotSupported,
    Overloaded,
    PromptTooLong,
)
from falcon_mamba_app.protocol import (
    Accepted,
    Continuation,
    Conversation,
    Finished,
    GenerationRequest,
    Message,
    PrefillProgress,
    PromptScored,
    SamplingParams,
    Text,
    TextDelta,
    TokenIds,
    Waiting,
)
from falcon_mamba_app.service.local.build import build_local
from tests.support.services import collect, make_local_service, reply_text, settled

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=24)
LONG = SamplingParams(temperature=0.0, max_new_tokens=400, ignore_eos=True)


def ask(*contents, session_id=None, sampling=GREEDY):
    """A conversation, roles alternating from the user's first message."""
    roles = ("user", "assistant")
    messages = Conversation(Message(roles[i % 2], text) for i, text in enumerate(contents))
    return GenerationRequest(prompt=messages, sampling=sampling, session_id=session_id)


@pytest.fixture
async def service():
    service = make_local_service()
    await service.start()
    yield service
    await service.close()


async def converse(service, questions, *, session_id="s", sampling=GREEDY, forget=False):
    """The replies of a conversation, and each turn's Finished."""
    contents, ends = [], []
    for question in questions:
        contents.append(question)
        if forget:
            await asyncio.wrap_future(
                service._worker.call(lambda engine: engine.snapshots.forget(session_id))
            )
        events = await collect(service, ask(*contents, session_id=session_id, sampling=sampling))
        contents.append(reply_text(events))
        ends.append(events[-1])
    return contents[1::2], ends


QUESTIONS = ["Hello! My name is Zorvic.", "I have a dog.", "What is my name?"]


async def test_a_system_message_is_read_once_and_a_growing_conversation_too(service):
    """What every ordinary client does: no key, the whole conversation sent each time."""
    system = Message("system", "You are a helpful friend who remembers names. " * 8)

    async def ask_all(*contents: str, reuse_id: str | None = "anna"):
        turns = (Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents))
        prompt = Conversation((system, *turns))
        request = GenerationRequest(prompt=prompt, sampling=GREEDY, reuse_id=reuse_id)
        events = await collect(service, request)
        return reply_text(events), events[-1].reused_tokens

    hello, reused = await ask_all("Hello!")
    assert reused == 0
    _, system_tokens = await ask_all("What is a river?")
    assert system_tokens > 60
    assert (await ask_all("My name is Tom."))[1] == system_tokens
    warm, reused = await ask_all("Hello!", hello, "What can you do?")
    assert reused > system_tokens
    assert (await ask_all("Hello!", reuse_id="tom"))[1] == 0
    cold, reused = await ask_all("Hello!", hello, "What can you do?", reuse_id=None)
    assert (cold, reused) == (warm, 0)


async def test_a_conversation_remembers_what_it_was_told(service):
    replies, _ = await converse(service, ["Hi, my name is Tom.", "What is my name?"])
    assert "Tom" in replies[-1]


async def test_each_turn_feeds_only_what_is_new(service):
    _, ends = await converse(service, QUESTIONS)
    for before, after in zip(ends, ends[1:], strict=False):
        # All of the turn before, but for the end-of-turn token, which was sampled and never fed.
        assert after.reused_tokens == before.prompt_tokens + before.completion_tokens - 1


async def test_answers_are_the_same_with_the_snapshots_emptied_before_every_turn(service):
    warm, _ = await converse(service, QUESTIONS, session_id="warm")
    cold, ends = await converse(service, QUESTIONS, session_id="cold", forget=True)
    assert warm == cold
    assert [end.reused_tokens for end in ends] == [0, 0, 0]


async def test_ids_that_are_not_canonical_are_fed_again_as_they_were_sampled(service):
    """At a high temperature the model writes ids that its tokenizer would never choose."""
    hot = SamplingParams(temperature=1.8, max_new_tokens=40, seed=3, ignore_eos=True)
    replies, ends = await converse(service, QUESTIONS, sampling=hot)
    encoder = service._encoder
    canonical = encoder._markup.encode_literal(replies[0])
    assert len(canonical) != ends[0].completion_tokens, "choose another seed: these are canonical"
    for before, after in zip(ends, ends[1:], strict=False):
        assert after.reused_tokens == before.prompt_tokens + before.completion_tokens - 1


async def test_a_retry_reads_nothing_again(service):
    first = await collect(service, ask("Tell me a story.", session_id="s"))
    again = await collect(service, ask("Tell me a story.", session_id="s"))
    assert again[0] == Accepted(first[0].prompt_tokens, first[0].prompt_tokens - 1)
    assert not any(isinstance(event, PrefillProgress) for event in again)
    assert reply_text(again) == reply_text(first)


async def test_a_plain_text_that_grows_has_the_ids_it_has_alone_and_is_not_read_again(service):
    """The text before was cut inside a word, and the model went on with ids of its own."""
    hot = SamplingParams(temperature=1.8, max_new_tokens=30, seed=3, ignore_eos=True)
    text, ends = "Once upon a ti", []
    for addition in ("", "me. And th", "en there was"):
        text += addition
        request = GenerationRequest(prompt=Text(text), sampling=hot, session_id="s")
        events = await collect(service, request)
        alone = service._encoder.encode(Text(text))
        assert service._encoder.encode(Text(text), "s") == alone
        assert events[-1].prompt_tokens == len(alone)
        text += reply_text(events)
        ends.append(events[-1])
    for before, after in zip(ends, ends[1:], strict=False):
        assert after.reused_tokens >= before.prompt_tokens - 2


async def test_undo_goes_back_to_the_turn_before(service):
    (first, _), ends = await converse(service, ["I have a cat.", "Tell me a story."])
    events = await collect(service, ask("I have a cat.", first, "And a dog.", session_id="s"))
    assert events[-1].reused_tokens == ends[0].prompt_tokens + ends[0].completion_tokens - 1


async def test_a_reply_stopped_in_mid_word_goes_on_as_if_it_had_been_typed(service):
    """The state after a stop has read more than the visitor saw; that must not leak."""
    shown = ""
    request = ask("Tell me a story.", session_id="s", sampling=LONG)
    async with aclosing(service.generate(request)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                shown += event.text
            if len(shown) > 30:
                break
    shown = shown[:-2]
    warm = await collect(service, ask("Tell me a story.", shown, "Go on.", session_id="s"))
    cold = await collect(service, ask("Tell me a story.", shown, "Go on."))
    assert warm[-1].reused_tokens > 0
    assert reply_text(warm) == reply_text(cold)


async def test_sessions_do_not_see_each_other(service):
    await collect(service, ask("My name is Tom.", session_id="mine"))
    events = await collect(service, ask("My name is Tom.", session_id="yours"))
    assert events[-1].reused_tokens == 0


async def test_forgetting_a_session_drops_its_states_and_ids(service):
    await collect(service, ask("My name is Tom.", session_id="s"))
    service.forget("s")
    events = await collect(service, ask("My name is Tom.", session_id="s"))
    assert events[-1].reused_tokens == 0
    assert await asyncio.wrap_future(service.forget("s"))
    assert not await asyncio.wrap_future(service.forget("nobody"))
    await settled(lambda: service.stats().snapshots == 0)
    assert service._reply_log.num_tokens == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_seeded_request_gives_the_same_text_alone_and_in_any_batch(dtype):
    service = make_local_service(dtype=dtype)
    await service.start()
    requests = [
        ask(
            f"Tell me about the number {i}.",
            sampling=SamplingParams(temperature=1.0, top_p=0.9, seed=i, max_new_tokens=40),
        )
        for i in range(12)
    ]
    alone = [reply_text(await collect(service, request)) for request in requests]
    batched = await asyncio.gather(*(collect(service, request) for request in requests))
    assert [reply_text(events) for events in batched] == alone
    assert len(set(alone)) > 1
    await service.close()


async def test_without_a_seed_replies_differ(service):
    sampling = SamplingParams(temperature=1.5, max_new_tokens=20)
    texts = {
        reply_text(await collect(service, ask("Tell me a story.", sampling=sampling)))
        for _ in range(3)
    }
    assert len(texts) == 3


async def test_a_stop_string_ends_the_reply_before_it(service):
    whole = reply_text(await collect(service, ask("Tell me a story.", sampling=LONG)))
    stop = whole[20:26]
    sampling = SamplingParams(temperature=0.0, max_new_tokens=400, stop=("Xyzzy", stop))
    events = await collect(service, ask("Tell me a story.", sampling=sampling))
    assert reply_text(events) == whole[: whole.index(stop)]
    assert events[-1].reason == "stop"
    await settled(lambda: service.stats().running == 0)


async def test_the_pieces_of_a_streamed_reply_are_the_reply(service):
    events = await collect(service, ask("Tell me a story.", sampling=LONG))
    kinds = [type(event) for event in events]
    assert kinds[0] is Accepted
    assert kinds[-1] is Finished
    assert kinds.count(Finished) == 1
    assert kinds.count(TextDelta) > 100
    assert events[-1].completion_tokens == 400
    assert events[-1].reason == "length"
    assert events[-1].ttft_s < events[-1].ttft_s + events[-1].decode_s


async def test_closing_the_stream_frees_the_slot(service):
    stream = service.generate(ask("Tell me a story.", sampling=LONG))
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    await stream.aclose()
    await settled(lambda: service.stats().running == 0)
    assert not service._streams


async def test_those_in_line_learn_their_place_and_those_beyond_are_refused():
    service = make_local_service(max_running=1, max_waiting=1)
    await service.start()
    first = service.generate(ask("Tell me a story.", sampling=LONG))
    await anext(first)
    second = service.generate(ask("Hello", sampling=GREEDY))
    assert await anext(second) == Waiting(1)
    with pytest.raises(Overloaded, match="2 requests"):
        await collect(service, ask("Hello"))
    await first.aclose()
    rest = [event async for event in second]
    assert isinstance(rest[0], Accepted)
    assert isinstance(rest[-1], Finished)
    await service.close()


async def test_a_prompt_can_be_scored_without_a_reply(service):
    request = GenerationRequest(
        prompt=Text("The cat sat on the mat."),
        sampling=SamplingParams(max_new_tokens=0),
        score_prompt=2,
    )
    events = await collect(service, request)
    (scored,) = (event for event in events if isinstance(event, PromptScored))
    assert "".join(token.token for token in scored.tokens) == "The cat sat on the mat."
    assert scored.tokens[0].logprob is None
    assert all(token.logprob < 0 and len(token.top) == 2 for token in scored.tokens[1:])
    assert events[-1].completion_tokens == 0


async def test_a_one_token_prompt_can_be_scored(service):
    request = GenerationRequest(
        prompt=TokenIds([500]), sampling=SamplingParams(max_new_tokens=0), score_prompt=0
    )
    events = await collect(service, request)
    assert [len(event.tokens) for event in events if isinstance(event, PromptScored)] == [1]


async def test_log_probabilities_tell_every_token_once(service):
    sampling = SamplingParams(temperature=0.0, max_new_tokens=20, logprobs=3)
    events = await collect(service, ask("Tell me a story.", sampling=sampling))
    tokens = [t for event in events if isinstance(event, TextDelta) for t in event.logprobs]
    assert len(tokens) == events[-1].completion_tokens
    assert b"".join(t.token_bytes for t in tokens).decode().startswith(reply_text(events))
    assert all(t.logprob == t.top[0].logprob for t in tokens), "greedy takes the best"


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (GenerationRequest(prompt=Conversation()), InvalidRequest, "empty"),
        (GenerationRequest(prompt=TokenIds([9_999])), InvalidRequest, "8191"),
        (ask("x", sampling=SamplingParams(max_new_tokens=10_000)), InvalidRequest, "4096"),
        (ask("x", sampling=SamplingParams(max_new_tokens=0)), InvalidRequest, "at least 1"),
        (ask("word " * 3_000), PromptTooLong, "2000"),
        (ask("\ud800"), InvalidRequest, "surrogate"),
    ],
)
async def test_bad_requests_are_refused_with_a_sentence(request_, error, words):
    service = make_local_service(max_prompt_tokens=2_000)
    await service.start()
    with pytest.raises(error, match=words):
        await collect(service, request_)
    assert isinstance((await collect(service, ask("Hello")))[-1], Finished)
    await service.close()


async def test_a_request_before_the_model_is_loaded_is_told_to_wait():
    service = make_local_service()
    assert service.stats().status == "loading"
    with pytest.raises(NotReady, match="loading"):
        await collect(service, ask("Hello"))


async def test_a_conversation_moves_to_another_process_as_one_file(service):
    replies, ends = await converse(service, QUESTIONS[:2])
    data = await service.export_state("s")
    assert len(data) < service.stats().model.state_bytes + 20_000
    other = make_local_service()
    await other.start()
    last = ends[-1]
    num_tokens = await other.import_state("elsewhere", data)
    assert num_tokens == last.prompt_tokens + last.completion_tokens - 1
    contents = [QUESTIONS[0], replies[0], QUESTIONS[1], replies[1], QUESTIONS[2]]
    there = await collect(other, ask(*contents, session_id="elsewhere"))
    here = await collect(service, ask(*contents, session_id="s"))
    assert there[-1].reused_tokens == here[-1].reused_tokens == num_tokens
    assert reply_text(there) == reply_text(here)
    await other.close()


async def test_a_session_without_a_state_cannot_be_exported(service):
    with pytest.raises(NotFound, match="no state"):
        await service.export_state("nobody")


async def test_a_damaged_or_foreign_state_is_refused_and_changes_nothing(service):
    await collect(service, ask("Hello", session_id="s"))
    data = await service.export_state("s")
    own = service.stats().snapshots
    for bad in (
        b"",
        b"hello world, this is no tensor file",
        data[:-100],
        data[:2_000],
        data.replace(b"falcon-mamba-state-1", b"falcon-mamba-state-9"),
        data.replace(b'"model":"', b'"model":"0', 1),
    ):
        with pytest.raises(InvalidRequest):
            await service.import_state("other", bad)
    assert service.stats().snapshots == own


def rewritten(data, *, replies=None, **tensors):
    """A state's file with other replies or tensors in it."""
    from safetensors.torch import save

    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    if replies is not None:
        metadata["replies"] = json.dumps(replies)
    return save({**load_tensors(data), **tensors}, metadata)


async def test_a_crafted_state_is_refused_before_any_of_it_is_kept(service):
    await collect(service, ask("Hello", session_id="s"))
    data = await service.export_state("s")
    own = service.stats().snapshots
    digest = "00" * 16
    ssm = load_tensors(data)["ssm_state"]
    for bad in (
        rewritten(data, replies=[{"prompt_digest": digest, "token_ids": [9_000]}]),
        rewritten(data, replies=[{"prompt_digest": digest, "token_ids": [4_000_000_000]}]),
        rewritten(data, replies=[{"prompt_digest": digest, "token_ids": []}]),
        rewritten(data, replies={"prompt_digest": digest}),
        rewritten(data, token_ids=torch.tensor([8_192], dtype=torch.int32)),
        rewritten(data, token_ids=torch.tensor([-1], dtype=torch.int32)),
        rewritten(data, token_ids=torch.zeros(0, dtype=torch.int32)),
        rewritten(data, ssm_state=ssm.double()),
        rewritten(data, ssm_state=ssm.to(torch.float8_e4m3fn)),
        rewritten(data, ssm_state=torch.full_like(ssm, 3e38)),
        rewritten(data, ssm_state=torch.full_like(ssm, float("nan"))),
        rewritten(data, ssm_state=ssm[:1]),
    ):
        with pytest.raises(InvalidRequest):
            await service.import_state("other", bad)
    assert service.stats().snapshots == own
    with pytest.raises(NotFound):
        await service.export_state("other")


def file_with(header: bytes, *, length: int | None = None, rest: bytes = b"") -> bytes:
    """A file that begins as safetensors does, with any header and any claim about its length."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + rest


def header_with(**tensors) -> bytes:
    metadata = {"format": "falcon-mamba-state-1"}
    return json.dumps({"__metadata__": metadata, **tensors}).encode()


HUGE = 2**40
BOMBS = {
    "a length beyond all memory": file_with(b"{}", length=2**63 - 1),
    "a length beyond the file": file_with(b"{}", length=10_000),
    "a header of megabytes": file_with(b'{"a":"' + b"x" * 9 * 2**20 + b'"}'),
    "a deep header": file_with(b'{"a":' * 100_000),
    "a wide header": file_with(header_with(**{f"t{n}": {} for n in range(50_000)})),
    "a tensor beyond all memory": file_with(
        header_with(ssm_state={"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]})
    ),
    "a shape beyond its bytes": file_with(
        header_with(ssm_state={"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}),
        rest=b"1234",
    ),
    "two tensors in the same bytes": file_with(
        header_with(
            conv_state={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            ssm_state={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        ),
        rest=b"1234",
    ),
    "a negative offset": file_with(
        header_with(ssm_state={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]})
    ),
    "a number of many digits": file_with(b'{"a":' + b"9" * 100_000 + b"}"),
    "metadata that is a list": file_with(b'{"__metadata__": [[]]}'),
    "a zip": b"PK\x03\x04" + b"\0" * 1_000,
    "a pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_a_file_that_is_more_than_it_seems_costs_next_to_nothing(service, bomb):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            await service.import_state("other", bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    with pytest.raises(NotFound):
        await service.export_state("other")


async def test_a_server_that_keeps_no_states_takes_none_in(service):
    await collect(service, ask("Hello", session_id="s"))
    data = await service.export_state("s")
    other = make_local_service(snapshot_bytes=0)
    await other.start()
    with pytest.raises(NotSupported, match="--snapshot-bytes"):
        await other.import_state("s", data)
    await other.close()


async def test_giving_up_on_an_export_harms_nobody(service):
    await collect(service, ask("Hello", session_id="s"))
    stream = service.generate(ask("Tell me a story.", sampling=LONG))
    await anext(stream)
    for _ in range(20):
        export = asyncio.create_task(service.export_state("s"))
        await asyncio.sleep(0)
        export.cancel()
    rest = [event async for event in stream]
    assert isinstance(rest[-1], Finished)
    assert service.stats().status == "ready"


async def test_giving_up_while_the_model_loads_leaves_no_error():
    service = make_local_service()
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await service.close()
    assert service.stats().status == "failed"
    assert "stopping" in service.stats().detail


async def test_a_session_forgotten_in_mid_reply_leaves_nothing(service):
    stream = service.generate(ask("Tell me a story.", session_id="s", sampling=LONG))
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    service.forget("s")
    await stream.aclose()
    await settled(lambda: service.stats().running == 0)
    with pytest.raises(NotFound):
        await service.export_state("s")
    assert service._reply_log.num_tokens == 0


async def test_a_reader_that_stalls_after_the_end_holds_no_place():
    service = make_local_service(max_running=1, max_waiting=0)
    await service.start()
    stalled = service.generate(ask("Hello"))
    await anext(stalled)
    await settled(lambda: all(stream.has_ended for stream in service._streams.values()))
    assert isinstance((await collect(service, ask("Hello")))[-1], Finished)
    await stalled.aclose()
    await service.close()


async def test_a_flood_of_empty_messages_is_refused_before_it_is_encoded(service, monkeypatch):
    monkeypatch.setattr(service._encoder, "encode", lambda *args, **_: pytest.fail("was encoded"))
    messages = Conversation(Message("user", "") for _ in range(200_000))
    with pytest.raises(PromptTooLong, match="200000 messages"):
        await collect(service, GenerationRequest(prompt=messages))


async def test_a_failing_engine_fails_open_streams_and_turns_the_service_down(service, monkeypatch):
    stream = service.generate(ask("Tell me a story.", sampling=LONG))
    await anext(stream)

    def broken(self):
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr("falcon_mamba_app.engine.engine.Engine.step", broken)
    with pytest.raises(EngineFailure, match="device-side assert"):
        async for _ in stream:
            pass
    assert service.stats().status == "failed"
    assert "restart" in service.stats().detail
    with pytest.raises(EngineFailure):
        await collect(service, ask("Hello"))


async def test_a_closed_service_leaves_nobody_waiting_for_a_session(service):
    """Who asked after the engine's thread had ended waited for ever."""
    await collect(service, ask("My name is Tom.", session_id="s"))
    await service.close()
    async with asyncio.timeout(60):
        with pytest.raises(EngineFailure, match="stopped"):
            await service.export_state("s")
        with pytest.raises(EngineFailure, match="stopped"):
            await asyncio.wrap_future(service.forget("s"))


async def test_closing_the_service_ends_open_streams(service):
    stream = service.generate(ask("Tell me a story.", sampling=LONG))
    await anext(stream)
    await service.close()
    with pytest.raises(EngineFailure, match="stopping"):
        async for _ in stream:
            pass


async def test_the_event_loop_is_not_blocked_while_a_long_prompt_is_read(service):
    gaps, last = [], asyncio.get_running_loop().time()
    stream = service.generate(ask("once upon a time " * 1_500, sampling=GREEDY))

    async def consume():
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    while not task.done():
        await asyncio.sleep(0.005)
        now = asyncio.get_running_loop().time()
        gaps.append(now - last)
        last = now
    assert max(gaps) < 0.5
    assert len(gaps) > 5


async def test_stats_describe_the_model_and_count(service):
    await collect(service, ask("Hello", session_id="s"))
    stats = service.stats()
    assert stats.status == "ready"
    assert stats.model.is_bundled
    assert stats.model.num_parameters == pytest.approx(24.5e6, rel=0.02)
    assert stats.requests_total == 1
    assert stats.completion_tokens_total > 0
    assert 10**8 < stats.process_memory_bytes <= stats.peak_process_memory_bytes
    assert stats.gpu_memory_bytes is None
    assert stats.snapshot_bytes >= stats.model.state_bytes


def test_a_missing_gpu_is_said_before_anything_starts():
    from falcon_mamba_app.errors import SettingsError
    from falcon_mamba_app.settings import EngineSettings, ModelSettings

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingsError, match="no CUDA GPU"):
        build_local(ModelSettings(model="nano", device="cuda"), EngineSettings())


async def test_a_reply_goes_on_by_its_ids_and_only_the_new_ones_are_read(service):
    first = await collect(service, ask("Hello there", session_id="s"))
    so_far = first[-1].packed_ids
    assert len(so_far) // 4 in (
        first[-1].prompt_tokens + first[-1].completion_tokens - n for n in (0, 1)
    )
    more = Conversation([Message("user", "And then?")])
    by_ids = await collect(
        service,
        GenerationRequest(prompt=Continuation(so_far, more), sampling=GREEDY, session_id="s"),
    )
    by_text = await collect(
        service, ask("Hello there", reply_text(first), "And then?", session_id="s")
    )
    assert reply_text(by_ids) == reply_text(by_text)
    assert by_ids[-1].packed_ids == by_text[-1].packed_ids
    assert by_ids[-1].packed_ids.startswith(so_far)
    num_before = first[-1].prompt_tokens + first[-1].completion_tokens - 1
    assert by_ids[-1].reused_tokens == num_before
    cold = GenerationRequest(
        prompt=Continuation(so_far, more), sampling=GREEDY, session_id="elsewhere"
    )
    assert reply_text(await collect(service, cold)) == reply_text(by_ids)


async def test_ids_that_the_model_does_not_have_do_not_go_on(service):
    more = Conversation([Message("user", "And then?")])
    for foreign in (10**6, -1):
        ids = Continuation(foreign.to_bytes(4, "little", signed=True), more)
        with pytest.raises(InvalidRequest, match="no such token"):
            await collect(service, GenerationRequest(prompt=ids, sampling=GREEDY))
