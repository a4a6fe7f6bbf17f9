"""ZeroGPU's rules, held by a stand-in that forks and pickles as the platform does."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import resource
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import pytest
import torch

from falcon_mamba_app.engine.events import Ended
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.errors import NotSupported, Overloaded, SettingsError
from falcon_mamba_app.protocol import SamplingParams, TextDelta, Waiting
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.startup import Startup
from falcon_mamba_app.service.zero_gpu.borrowed_run import (
    BorrowedRun,
    Borrower,
    PackedSnapshot,
    StopFlags,
)
from falcon_mamba_app.service.zero_gpu.build import build_borrowing
from falcon_mamba_app.service.zero_gpu.service import PageOnly
from falcon_mamba_app.service.zero_gpu.worker import (
    FIRST_PREPARATION_S,
    MAX_LOAN_S,
    PREPARATION_S,
    loan_s,
    plan_run,
)
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from tests.service.test_contract import GREEDY, LONG, chat, events_of, text_of, until
from tests.support.checkpoints import make_model, make_tiny_checkpoint
from tests.support.engine_fixtures import make_engine, ours, random_prompt
from tests.support.forked_gpu import ForkedGpu, Refused

# The clock stands still: a busy machine ends no reply.
borrowing = partial(build_borrowing, clock=lambda: 0.0)

# Everything of the 7B that decides how large its state is, and as little as can be of the rest.
SEVEN_B_STATE = {
    "num_hidden_layers": 64,
    "hidden_size": 16,
    "expand": 512,
    "state_size": 16,
    "conv_kernel": 4,
    "time_step_rank": 4,
}
SEVEN_B_STATE_BYTES = 64 * 8192 * (16 * 4 + 3 * 2)


def settings(folder, **engine) -> tuple[ModelSettings, EngineSettings]:
    """On the reference kernels: compiled ones start threads, which no fork survives."""
    model = ModelSettings(model=str(folder), device="cpu", dtype="bfloat16", kernels="reference")
    return model, EngineSettings(max_prompt_tokens=2_000, **engine)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("zero") / "tiny")


@pytest.fixture(scope="session")
def seven_b_state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero") / "seven"
    return make_tiny_checkpoint(folder, dtype=torch.bfloat16, **SEVEN_B_STATE)


@pytest.fixture
def gpu():
    gpu = ForkedGpu()
    yield gpu
    gpu.close()


@pytest.fixture
async def service(tiny, gpu):
    service = borrowing(*settings(tiny, max_running=1), lend=gpu.lend)
    await service.start()
    yield service
    await service.close()


@pytest.fixture
def few_files():
    """The limit that a login shell and a Space's container have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_lent_reply_is_the_one_that_a_gpu_of_our_own_gives(tiny, service):
    ours = build_local(*settings(tiny))
    await ours.start()
    conversation = ("hello", "and then", "the sea")
    lent, local = [], []
    for end in (1, 3):
        request = chat(*conversation[:end], session_id="s")
        lent.append(text_of(await events_of(service, request)))
        local.append(text_of(await events_of(ours, request)))
    await ours.close()
    assert lent == local


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_state_is_carried_from_process_to_process(tiny, keeps):
    gpu = ForkedGpu(keeps=keeps)
    service = borrowing(*settings(tiny, max_running=1), lend=gpu.lend)
    await service.start()
    reply = text_of(await events_of(service, chat("hello", session_id="s")))
    again = (await events_of(service, chat("hello", reply, "go on", session_id="s")))[-1]
    await service.close()
    gpu.close()
    assert again.reused_tokens >= again.prompt_tokens - 20
    assert gpu.num_forks == (1 if keeps else 2)


async def test_a_dozen_conversations_of_the_7bs_size_leave_no_file_open(
    seven_b_state, gpu, few_files
):
    """Tensors would cross as file descriptors, two for each state that is held."""
    engine = EngineSettings(max_running=1, max_prompt_tokens=2_000, snapshot_bytes=2 * 2**30)
    service = borrowing(settings(seven_b_state)[0], engine, lend=gpu.lend)
    assert service.stats().model.state_bytes == SEVEN_B_STATE_BYTES
    await service.start()
    sampling = replace(GREEDY, max_new_tokens=2)
    await events_of(service, replace(chat("one", session_id="first"), sampling=sampling))
    num_open = num_open_files()
    replies = {}
    for number in range(12):
        request = replace(chat("one", session_id=f"{number}"), sampling=sampling)
        replies[number] = text_of(await events_of(service, request))
    assert num_open_files() <= num_open + 1  # and not 24 more
    reused = []
    for number in range(0, 12, 4):
        again = chat("one", replies[number], "two", session_id=f"{number}")
        events = await events_of(service, replace(again, sampling=sampling))
        reused.append(events[-1].reused_tokens)
    stats = service.stats()
    await service.close()
    assert stats.snapshots >= 12
    assert stats.snapshot_bytes >= 12 * SEVEN_B_STATE_BYTES
    assert min(reused) > 0


def test_a_state_of_the_7bs_size_is_the_same_after_the_border():
    conv = torch.randn(64, 3, 8192).bfloat16()
    snapshot = Snapshot(b"\1\0\0\0", State(conv, torch.randn(64, 16, 8192)))
    crossed = pickle.loads(pickle.dumps(PackedSnapshot.of(snapshot))).unpacked()
    assert torch.equal(crossed.conv, snapshot.state.conv)
    assert torch.equal(crossed.ssm, snapshot.state.ssm)
    assert crossed.conv.dtype == torch.bfloat16
    crossed.ssm.zero_()  # its owner may write to it


async def test_a_spent_quota_is_a_sentence(service, gpu):
    message = "You have exceeded your free ZeroGPU quota (42s requested vs. 10s left)."
    gpu.refusal = Refused("ZeroGPU quota exceeded", message)
    with pytest.raises(Overloaded, match=r"is spent for now. You have exceeded .* 10s left"):
        await events_of(service, chat("hello"))
    gpu.refusal = None
    assert text_of(await events_of(service, chat("hello")))


async def test_a_gpu_that_is_taken_away_breaks_one_reply_only(service, gpu):
    with pytest.raises(Overloaded, match="taken away"):
        async with aclosing(service.generate(LONG)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    gpu.kill()
    assert text_of(await events_of(service, chat("hello")))
    await until(lambda: service.stats().running == 0)


async def test_a_reply_that_was_stopped_gives_the_gpu_back_at_once(service, gpu):
    async with aclosing(service.generate(LONG)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await until(lambda: service.stats().running == 0)
    assert text_of(await events_of(service, chat("hello")))
    assert gpu.num_forks == 1


async def stop_in_mid_reply(service, request) -> str:
    """What had been written when the reply was stopped."""
    text = ""
    async with aclosing(service.generate(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
                if len(text) > 20:
                    break
    await until(lambda: service.stats().running == 0)
    return text


async def test_a_reply_that_was_stopped_leaves_the_state_that_has_read_its_prompt(service, gpu):
    """The next turn read the whole conversation again, at the visitor's cost."""
    question = "a long question " * 20
    said = await stop_in_mid_reply(
        service, replace(chat(question, session_id="s"), sampling=LONG.sampling)
    )
    again = (await events_of(service, chat(question, said, "go on", session_id="s")))[-1]
    cold = (await events_of(service, chat(question, session_id="t")))[-1]
    assert again.reused_tokens == cold.prompt_tokens - 1
    assert gpu.num_forks == 1


async def test_a_stopped_reply_is_followed_by_the_one_that_a_cold_start_gives(service):
    said = await stop_in_mid_reply(
        service, replace(chat("hello", session_id="s"), sampling=LONG.sampling)
    )
    warm = await events_of(service, chat("hello", said, "go on", session_id="s"))
    cold = await events_of(service, chat("hello", said, "go on", session_id="t"))
    assert warm[-1].reused_tokens > cold[-1].reused_tokens == 0
    assert text_of(warm) == text_of(cold)


async def test_a_session_forgotten_in_mid_reply_leaves_no_state(service):
    async with aclosing(service.generate(replace(LONG, session_id="s"))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        assert await asyncio.wrap_future(service.forget("s"))
    await until(lambda: service.stats().running == 0)
    assert service.stats().snapshots == 0


async def test_a_lent_gpu_spends_no_time_on_memory_for_more_states_than_a_turn_has(
    seven_b_state, monkeypatch
):
    """Every fork pinned memory for 64 states, 0.8 s of what was lent."""
    build, engines = Startup.build_engine, []

    def build_engine(startup, model, **options):
        engines.append(build(startup, model, **options))
        return engines[-1]

    monkeypatch.setattr(Startup, "build_engine", build_engine)
    service = borrowing(*settings(seven_b_state), lend=lambda run: run)
    await service.start()
    await events_of(service, chat("hello", session_id="s"))
    stats = service.stats()
    await service.close()
    (engine,) = engines
    assert stats.snapshots == 1
    assert engine.snapshots.max_bytes < 3 * stats.model.state_bytes < stats.max_snapshot_bytes
    assert engine.pool.num_slots == 2  # one turn's and the scratch slot


@pytest.mark.parametrize("look_ahead", [False, True])
async def test_a_turn_ends_before_its_loan_does(tiny, gpu, monkeypatch, look_ahead):
    """On a GPU a step is in flight when the time is up; its token counts."""
    build = Startup.build_engine

    def build_engine(startup, model, **options):
        engine = build(startup, model, **options)
        engine._look_ahead = look_ahead
        return engine

    monkeypatch.setattr(Startup, "build_engine", build_engine)
    seconds = itertools.count()  # one passes with each look at the clock: a step takes a second
    service = borrowing(
        *settings(tiny, max_running=1), lend=gpu.lend, clock=lambda: float(next(seconds))
    )
    await service.start()
    sampling = replace(LONG.sampling, max_new_tokens=4_000)
    events = await events_of(service, replace(LONG, sampling=sampling, session_id="s"))
    assert events[-1].reason == "length"
    assert events[-1].completion_tokens == MAX_LOAN_S - FIRST_PREPARATION_S
    assert service.stats().completion_tokens_total == events[-1].completion_tokens
    turns = ("LONG SLOW", text_of(events), "go on")
    again = replace(chat(*turns, session_id="s"), sampling=replace(GREEDY, max_new_tokens=1))
    reused = (await events_of(service, again))[-1].reused_tokens
    await service.close()
    assert reused >= events[-1].completion_tokens


def test_a_turn_whose_last_token_was_in_flight_when_its_time_was_up_ends_once():
    """It ended twice, and was told so before its state had come: the next turn read it again."""
    clock = iter([0.0, 0.0, 10.0])  # the beginning, and after each of two steps
    build_engine = partial(make_engine, look_ahead=True)
    runner = Borrower(
        ours(make_model()),
        build_engine,
        StopFlags(1),
        make_matcher=lambda form: None,
        clock=lambda: next(clock, 10.0),
    )
    seq = Sequence(
        seq_id=1,
        prompt_token_ids=random_prompt(5),
        sampling=SamplingParams(max_new_tokens=1),
        seed=0,
        session_id="s",
    )
    reports = list(runner.run(BorrowedRun(seq, None, max_seconds=1.0, preparation_s=0.0)))
    ends = [event for report in reports for event in report.events if isinstance(event, Ended)]
    assert ends == reports[-1].events
    assert reports[-1].snapshot is not None


async def test_others_wait_in_line_and_are_told_their_place(service):
    first = service.generate(LONG)
    await anext(first)
    waiting = asyncio.create_task(events_of(service, chat("hello")))
    await until(lambda: service.stats().waiting == 1)
    await first.aclose()
    names = [type(event).__name__ for event in await waiting]
    assert names[0] == "Waiting"
    assert names[-1] == "Finished"


async def test_who_waits_behind_somebody_that_leaves_the_line_is_told_the_new_place(service):
    first = service.generate(LONG)
    await anext(first)
    leaving, staying = service.generate(chat("one")), service.generate(chat("two"))
    assert await anext(leaving) == Waiting(1)
    assert await anext(staying) == Waiting(2)
    await leaving.aclose()
    assert await asyncio.wait_for(anext(staying), 60) == Waiting(1)
    await first.aclose()
    await staying.aclose()


async def test_the_api_is_told_that_it_is_off(tiny):
    service = PageOnly(borrowing(*settings(tiny), lend=lambda run: run), lambda: False)
    await service.start()
    with pytest.raises(NotSupported, match="gradio_client"):
        await events_of(service, chat("hello"))
    await service.close()


def test_a_quantised_model_is_refused(tiny):
    model, engine = settings(tiny)
    with pytest.raises(SettingsError, match="nf4.*leave --quantization out"):
        borrowing(replace(model, quantization="nf4"), engine, lend=lambda run: run)


async def test_the_platform_is_told_when_everything_is_loaded(tiny):
    told = []
    service = borrowing(
        *settings(tiny), lend=lambda run: run, report_start=lambda: told.append("start")
    )
    assert not told
    await service.start()
    await service.close()
    assert told == ["start"]


def sequence(num_prompt_tokens: int, max_new_tokens: int) -> Sequence:
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    prompt = list(range(num_prompt_tokens))
    return Sequence(seq_id=1, prompt_token_ids=prompt, sampling=sampling, seed=0)


def after(num_tokens: int) -> Snapshot:
    """A snapshot that has read so many tokens."""
    return Snapshot(bytes(4 * num_tokens), State(torch.zeros(1), torch.zeros(1)))


def test_the_loan_is_for_the_work_there_is():
    short, long = sequence(30, 100), sequence(30_000, 1_000)
    assert loan_s(plan_run(short, None)) < 20
    assert 20 < loan_s(plan_run(long, after(29_990))) < loan_s(plan_run(long, None))
    first = loan_s(plan_run(short, None, preparation_s=FIRST_PREPARATION_S))
    assert first > FIRST_PREPARATION_S


@pytest.mark.parametrize("preparation_s", [PREPARATION_S, FIRST_PREPARATION_S])
def test_no_loan_is_larger_than_a_visitor_without_an_account_has(preparation_s):
    turn = plan_run(sequence(100_000, 4_096), None, preparation_s=preparation_s)
    assert loan_s(turn) * 1.5 <= 120  # half as much again is charged


def test_what_crosses_can_be_pickled():
    turn = plan_run(sequence(5, 5), after(3))
    crossed = pickle.loads(pickle.dumps(turn))
    assert crossed.seq.prompt_token_ids == list(range(5))
    assert crossed.snapshot == turn.snapshot


async def test_the_engine_is_built_only_where_the_gpu_is(tiny, gpu, tmp_path, monkeypatch):
    """The server's process must not touch CUDA: a process forked after that has no GPU."""
    build, builders = Startup.build_engine, tmp_path / "builders"

    def build_and_tell(startup, model, **options):
        builders.write_text(str(os.getpid()))
        return build(startup, model, **options)

    monkeypatch.setattr(Startup, "build_engine", build_and_tell)
    service = borrowing(*settings(tiny), lend=gpu.lend)
    await service.start()
    assert not builders.exists()
    await events_of(service, chat("hello"))
    await service.close()
    assert int(builders.read_text()) != os.getpid()
