"""Of one conversation few restore points stay: the last turn's, forks, and fewer with age."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.events import Admitted, Prefilled
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import SnapshotStore
from falcon_mamba_app.thinning import RestorePoint, least_worth
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    finish,
    generate,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
)

STATE = State(torch.zeros(2, 5), torch.zeros(2, 5))


@pytest.fixture(scope="module")
def model():
    return ours(make_model("falcon_mamba"))


def talk(store: SnapshotStore, history: list[int], message: int, reply: int) -> None:
    """One turn: the states before the reply's first token and before its last."""
    for length, token in ((message, 1), (reply, 2)):
        history += [token] * length
        store.put("s", history[:-1], STATE)


def lengths(store: SnapshotStore) -> list[int]:
    return sorted(snapshot.num_tokens for snapshot in store._of("s").values())


def test_two_hundred_turns_hold_four_states_and_grow_by_less_than_two():
    store, history = SnapshotStore(max_bytes=2**30), [0]
    for _ in range(2):
        talk(store, history, 5, 10)
    early = store.num_bytes
    for _ in range(198):
        talk(store, history, 5, 10)
        assert len(store) <= 4
    num_id_bytes = sum(len(key) for key in store._of("s"))
    assert store.num_bytes - num_id_bytes < early + 2 * STATE.nbytes


def test_the_last_turn_can_be_retried_and_undone():
    store, history, ends = SnapshotStore(max_bytes=2**30), [0], []
    for turn in range(50):
        talk(store, history, 1 + 7 * turn % 40, 3 + 11 * turn % 60)
        ends.append(len(history) - 1)
        retry = ends[-1] - (3 + 11 * turn % 60)
        assert {ends[-1], retry, *ends[-2:-1]} <= set(lengths(store))


@pytest.mark.parametrize("num_kept", [6, 10, 16])
def test_points_get_ever_fewer_with_age(num_kept):
    store = SnapshotStore(max_bytes=2**30, max_per_session=num_kept)
    history = [0]
    for _ in range(300):
        talk(store, history, 5, 10)
    ages = [len(history) - length for length in lengths(store)]  # the oldest first
    gaps = [old - young for old, young in zip(ages, ages[1:-2], strict=False)]
    assert len(ages) == num_kept
    # Of any three neighbouring gaps the older ones are larger, and a loss stays in proportion.
    assert all(max(gaps[i:]) <= max(gaps[: i + 1]) for i in range(len(gaps)))
    worst = max(gap / age for gap, age in zip(gaps[1:], ages[1:], strict=False))
    assert worst < 8 / (num_kept - 3)


def test_a_fork_outlives_points_that_are_none():
    store, history = SnapshotStore(max_bytes=2**30), [0]
    for _ in range(3):
        talk(store, history, 5, 10)
    fork = len(history) - 1
    other = [*history, 7, 7]
    talk(store, history, 5, 10)
    store.put("s", other, STATE)  # another way from the same place
    for _ in range(40):
        talk(store, history, 5, 10)
        assert fork in lengths(store)


def test_a_session_that_is_only_retried_holds_four_states_too():
    store = SnapshotStore(max_bytes=2**30)
    store.put("s", [1, 2], STATE)
    store.put("s", [1, 2, 3], STATE)
    for attempt in range(100):
        store.put("s", [1, 2, 3, 100 + attempt], STATE)
    assert len(store) == 4
    assert {2, 3} <= set(lengths(store))


def test_a_pinned_point_goes_after_forks_and_before_the_last_turn():
    def point(num_tokens, **marks):
        return RestorePoint(
            num_tokens=num_tokens, num_shared=num_tokens, num_before=num_tokens - 10, **marks
        )

    points = [point(10, is_pinned=True), point(20, is_fork=True), point(30), point(40), point(50)]
    points.append(point(60))
    gone = []
    while points:
        gone.append(points.pop(least_worth(points)).num_tokens)
    assert gone == [30, 20, 10, 40, 50, 60]


def test_states_shared_between_requests_are_not_thinned():
    store = SnapshotStore(max_bytes=2**30)
    for number in range(20):
        store.put("group", [1, number], STATE, is_spare=True)
    assert len(store) == 20


def test_a_retry_further_back_reads_from_the_nearest_point_and_answers_the_same(model):
    engine, history, replies, starts = make_engine(model), [], [], []
    for turn in range(12):
        history += random_prompt(9, seed=turn)
        starts.append(len(history))
        replies.append(generate(engine, history, session_id="s"))
        history += replies[-1]
    known = sorted(s.num_tokens for s in engine.snapshots._of("s").values())
    for turn in (11, 6, 2):
        again = make_sequence(history[: starts[turn]], session_id="s")
        nearest = max((n for n in known if n < starts[turn]), default=0)
        engine.add(again)
        events = finish(engine)
        (admitted,) = [event for event in events if isinstance(event, Admitted)]
        num_read = sum(event.num_tokens for event in events if isinstance(event, Prefilled))
        assert again.output_token_ids == replies[turn]
        if turn == 11:
            assert (admitted.num_reused_tokens, num_read) == (starts[turn] - 1, 0)
            continue
        assert admitted.num_reused_tokens >= nearest
        assert num_read == starts[turn] - 1 - admitted.num_reused_tokens > 0
