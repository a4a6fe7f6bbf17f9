"""A sequence that gives its slot away in the middle goes on as if it had kept it."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.events import Admitted, Failed, Queued
from falcon_mamba_app.engine.sequence import Status
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    finish,
    generate,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
)

PENALIZED = {"temperature": 0.9, "seed": 3, "repetition_penalty": 1.3, "presence_penalty": 0.5}


@pytest.fixture(scope="module")
def model():
    return ours(make_model())


@pytest.fixture(params=[False, True], ids=["", "look-ahead"])
def engine(model, request):
    return make_engine(model, max_running=2, max_prefill_tokens=7, look_ahead=request.param)


def owned(owner, prompt, **options):
    seq = make_sequence(prompt, **options)
    seq.owner = owner
    return seq


def events_until(engine, is_done):
    events = []
    for _ in range(1_000):
        if is_done():
            return events
        events += engine.step()
    raise AssertionError("it never happens")


@pytest.mark.parametrize("sampling", [{}, PENALIZED], ids=["greedy", "penalised"])
@pytest.mark.parametrize("when", [Status.PREFILLING, Status.DECODING])
def test_a_parked_reply_is_the_reply_undisturbed(engine, model, when, sampling):
    length = 60 if when is Status.PREFILLING else 5
    prompts = [random_prompt(length, seed) for seed in (1, 2)]
    options = {"max_new_tokens": 12, **sampling}
    crowd = [owned("a", prompt, session_id=f"s{i}", **options) for i, prompt in enumerate(prompts)]
    for seq in crowd:
        engine.add(seq)
    is_at_work = lambda: all(seq.status is when and seq.num_computed_tokens > 3 for seq in crowd)  # noqa: E731
    events_until(engine, is_at_work)
    newcomer = owned("b", random_prompt(4, seed=9), max_new_tokens=3)
    engine.add(newcomer)
    events_until(engine, lambda: crowd[1].parked is not None)
    events = finish(engine)
    assert not [event for event in events if isinstance(event, Failed)]
    for seq, prompt in zip(crowd, prompts, strict=True):
        assert seq.output_token_ids == generate(make_engine(model), prompt, **options)
    assert newcomer.output_token_ids == generate(
        make_engine(model), newcomer.prompt_token_ids, max_new_tokens=3
    )
    assert engine.pool.num_free == 2


def test_a_newcomer_waits_for_steps_and_not_for_replies(engine):
    """The bound: whatever another owner has in line, the first token is a few steps away."""
    for _ in range(20):
        engine.add(owned("a", random_prompt(500), max_new_tokens=500))
    for _ in range(3):
        engine.step()
    newcomer = owned("b", random_prompt(3), max_new_tokens=2)
    engine.add(newcomer)
    steps = 0
    while not newcomer.output_token_ids:
        engine.step()
        steps += 1
    assert steps <= 5


def test_the_line_tells_a_newcomer_its_place_and_nothing_to_those_who_are_parked(engine):
    crowd = [owned("a", random_prompt(80)) for _ in range(2)]
    for seq in crowd:
        engine.add(seq)
    engine.step()
    engine.add(owned("b", random_prompt(80)))
    events = finish(engine)
    assert not [
        event for event in events if isinstance(event, Queued) and event.seq_id == crowd[1].seq_id
    ]
    admitted = [event.seq_id for event in events if isinstance(event, Admitted)]
    assert len(admitted) == len(set(admitted))


def test_what_a_parked_sequence_has_read_is_kept_when_it_is_cancelled(engine):
    prompt = random_prompt(60)
    crowd = [owned("a", random_prompt(60, 3)), owned("a", prompt, session_id="s")]
    for seq in crowd:
        engine.add(seq)
    events_until(engine, lambda: crowd[1].num_computed_tokens > 10)
    engine.add(owned("b", random_prompt(60, 4), max_new_tokens=50))
    events_until(engine, lambda: crowd[1].parked is not None)
    num_read = crowd[1].num_computed_tokens
    engine.abort(crowd[1].seq_id)
    finish(engine)
    again = make_sequence(prompt, session_id="s")
    engine.add(again)
    (admitted,) = [e for e in finish(engine) if isinstance(e, Admitted)]
    assert admitted.num_reused_tokens == num_read


def test_where_no_memory_is_left_to_park_the_slot_is_kept(engine, monkeypatch):
    crowd = [owned("a", random_prompt(60, seed)) for seq, seed in enumerate((1, 2))]
    for seq in crowd:
        engine.add(seq)
    engine.step()

    def full(slot):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(engine.pool, "save", full)
    engine.add(owned("b", random_prompt(5)))
    assert not [event for event in finish(engine) if isinstance(event, Failed)]
    assert all(len(seq.output_token_ids) == 8 for seq in crowd)
