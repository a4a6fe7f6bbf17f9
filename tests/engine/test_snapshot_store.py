"""States are found by the tokens they have read, within a budget in bytes."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.engine.states.store import SnapshotStore

STATE_BYTES = 80


def make_state(value=0.0):
    return State(torch.full((2, 5), value), torch.full((2, 5), value))


def make_store(num_snapshots=10):
    return SnapshotStore(max_bytes=num_snapshots * (STATE_BYTES + 12))


def test_the_longest_snapshot_that_is_a_prefix_is_found():
    store = make_store()
    for token_ids in ([1], [1, 2], [1, 2, 9], [2]):
        store.put("s", token_ids, make_state(len(token_ids)))
    assert store.longest_prefix("s", [1, 2, 3, 4]).token_ids == [1, 2]


def test_at_least_one_token_is_left_to_feed():
    store = make_store()
    store.put("s", [1, 2, 3], make_state())
    assert store.longest_prefix("s", [1, 2, 3]) is None
    assert store.longest_prefix("s", [1, 2, 3, 4]).num_tokens == 3


def test_ids_that_only_share_bytes_are_no_prefix():
    store = make_store()
    store.put("s", [1], make_state())
    assert store.longest_prefix("s", [257, 5]) is None


def test_a_session_sees_only_its_own():
    store = make_store()
    store.put("mine", [1], make_state())
    assert store.longest_prefix("yours", [1, 2]) is None


def test_the_least_recently_used_goes_first():
    store = make_store(2)
    store.put("a", [1], make_state())
    store.put("b", [1], make_state())
    store.longest_prefix("a", [1, 2])
    store.put("c", [1], make_state())
    assert store.longest_prefix("b", [1, 2]) is None
    assert store.longest_prefix("a", [1, 2]) is not None
    assert store.num_bytes <= store.max_bytes


def test_bytes_are_counted_through_puts_replacements_and_forgetting():
    store = make_store()
    store.put("a", [1], make_state())
    store.put("a", [1], make_state())
    assert (len(store), store.num_bytes) == (1, STATE_BYTES + 4)
    store.put("a", [1, 2], make_state())
    store.put("b", [1], make_state())
    store.forget("a")
    assert (len(store), store.num_bytes) == (1, STATE_BYTES + 4)
    store.forget("b")
    store.forget("nobody")
    assert (len(store), store.num_bytes) == (0, 0)


def test_what_can_never_fit_is_not_kept_and_evicts_nobody():
    store = SnapshotStore(max_bytes=STATE_BYTES + 4)
    store.put("a", [1], make_state())
    store.put("b", list(range(100)), make_state())
    assert store.longest_prefix("a", [1, 2]) is not None
    assert len(store) == 1


def test_the_newest_is_the_most_recently_used():
    store = make_store()
    store.put("a", [1], make_state())
    store.put("a", [1, 2], make_state())
    store.put("b", [7], make_state())
    assert store.newest("a").token_ids == [1, 2]
    store.longest_prefix("a", [1, 3])
    assert store.newest("a").token_ids == [1]
    assert store.newest("c") is None


def test_spare_states_take_half_of_the_budget_and_go_by_their_own_age():
    store = make_store(10)
    for number in range(4):
        store.put(f"kept {number}", [1], make_state())
    for number in range(20):
        store.put("spare", [1, number], make_state(), is_spare=True)
    assert store.num_spare_bytes <= store.max_spare_bytes < store.num_bytes <= store.max_bytes
    assert all(store.newest(f"kept {number}") is not None for number in range(4))
    assert store.longest_prefix("spare", [1, 19, 5]) is not None
    assert store.longest_prefix("spare", [1, 3, 5]) is None
    store.forget("spare")
    assert store.num_spare_bytes == 0


def test_a_spare_state_that_is_used_stays():
    store = make_store(4)
    store.put("spare", [1, 0], make_state(), is_spare=True)
    for number in range(1, 6):
        store.longest_prefix("spare", [1, 0, 5])
        store.put("spare", [1, number], make_state(), is_spare=True)
    assert store.longest_prefix("spare", [1, 0, 5]) is not None


@pytest.mark.parametrize("length", [0, 1, 5, 1023, 1024, 1025, 3000])
def test_what_two_prompts_have_in_common_is_counted_in_tokens(length):
    store = make_store(1_000)
    store.put("s", [*range(length), 70_000, 3], make_state())
    store.put("s", [9, 9], make_state())
    assert store.most_in_common("s", [*range(length), 70_001, 3]) == length
    assert store.most_in_common("nobody", [1]) == 0
