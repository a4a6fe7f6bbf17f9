"""Who runs when, in integers."""

from __future__ import annotations

import pytest

from falcon_mamba_app.engine.scheduler import Scheduler
from falcon_mamba_app.engine.sequence import Status
from falcon_mamba_app.protocol import BACKGROUND_WEIGHT
from tests.support.engine_fixtures import make_sequence


def make_scheduler(*lengths, max_running=4, max_prefill_tokens=10):
    """A scheduler with one prefilling sequence for each prompt length."""
    scheduler = Scheduler(max_running=max_running, max_prefill_tokens=max_prefill_tokens)
    sequences = [make_sequence([1] * (length + 1)) for length in lengths]
    for seq in sequences:
        scheduler.add(seq)
    for seq in scheduler.admit():
        seq.status = Status.PREFILLING
    return scheduler, sequences


def planned(scheduler):
    return {chunk.seq.seq_id: (chunk.start, chunk.end) for chunk in scheduler.plan().prefill}


def test_slots_are_given_in_the_order_of_arrival():
    scheduler, sequences = make_scheduler(5, 5, 5, max_running=2)
    assert scheduler.running == sequences[:2]
    scheduler.remove(sequences[0])
    assert scheduler.admit() == [sequences[2]]


def test_background_work_gives_up_its_last_place_and_takes_none_from_anybody():
    scheduler = Scheduler(max_running=1, max_prefill_tokens=10)
    behind, person, later = (make_sequence([1] * 5) for _ in range(3))
    behind.owner, behind.weight = "x batch", BACKGROUND_WEIGHT
    person.owner, later.owner = "ada", "bob"
    for seq in (behind, person, later):
        scheduler.add(seq)
        for admitted in scheduler.admit():
            admitted.status = Status.PREFILLING
    assert scheduler.running == [behind] and scheduler.choose_to_yield() is behind
    behind.status = Status.WAITING
    scheduler.park(behind)
    assert scheduler.waiting == [person, later, behind]
    scheduler.admit()[0].status = Status.PREFILLING
    scheduler.remove(later)
    assert scheduler.running == [person] and scheduler.choose_to_yield() is None


def test_one_prompt_gets_the_whole_budget():
    scheduler, (seq,) = make_scheduler(25)
    assert planned(scheduler) == {seq.seq_id: (0, 10)}
    seq.num_computed_tokens = 20
    assert planned(scheduler) == {seq.seq_id: (20, 25)}


def test_prompts_share_the_budget_and_what_short_ones_leave_goes_to_long_ones():
    scheduler, (long, short) = make_scheduler(100, 3)
    assert planned(scheduler) == {short.seq_id: (0, 3), long.seq_id: (0, 7)}


def test_a_budget_smaller_than_the_number_of_prompts_goes_to_the_shortest():
    scheduler, sequences = make_scheduler(5, 1, 3, max_prefill_tokens=2)
    assert planned(scheduler) == {sequences[1].seq_id: (0, 1), sequences[2].seq_id: (0, 1)}


@pytest.mark.parametrize("max_prefill_tokens", [1, 2, 3, 7, 100])
def test_no_step_reads_more_than_the_budget_and_every_prompt_is_read(max_prefill_tokens):
    scheduler, sequences = make_scheduler(9, 1, 30, 4, max_prefill_tokens=max_prefill_tokens)
    for _ in range(200):
        chunks = scheduler.plan().prefill
        assert sum(chunk.end - chunk.start for chunk in chunks) <= max_prefill_tokens
        for chunk in chunks:
            assert chunk.start == chunk.seq.num_computed_tokens
            chunk.seq.num_computed_tokens = chunk.end
            if not chunk.seq.num_remaining_prefill_tokens:
                chunk.seq.status = Status.DECODING
    assert scheduler.plan().decode == sequences


def test_a_long_prompt_is_read_in_small_pieces_while_others_are_being_answered():
    scheduler = Scheduler(max_running=4, max_prefill_tokens=10, max_mixed_prefill_tokens=3)
    reader, long = make_sequence([1]), make_sequence([1] * 100)
    for seq in (reader, long):
        scheduler.add(seq)
    scheduler.admit()
    reader.status, long.status = Status.DECODING, Status.PREFILLING
    assert planned(scheduler) == {long.seq_id: (0, 3)}
    scheduler.remove(reader)
    assert planned(scheduler) == {long.seq_id: (0, 10)}


def test_those_in_line_can_be_removed():
    scheduler, sequences = make_scheduler(5, 5, max_running=1)
    scheduler.remove(sequences[1])
    assert not scheduler.waiting


def of(owner, length=5, *, weight=1.0):
    seq = make_sequence([1] * (length + 1))
    seq.owner, seq.weight = owner, weight
    return seq


def filled(*sequences, max_running):
    """A scheduler that has been given these, in this order, and has admitted whom it can."""
    scheduler = Scheduler(max_running=max_running, max_prefill_tokens=12)
    for seq in sequences:
        scheduler.add(seq)
    for seq in scheduler.admit():
        seq.status = Status.PREFILLING
    return scheduler


def owners(sequences):
    return "".join(seq.owner for seq in sequences)


def give_way(scheduler):
    """Let one give its place to the first in line, as the engine does; whether any did."""
    seq = scheduler.choose_to_yield()
    if seq is None:
        return False
    seq.status = Status.WAITING
    scheduler.park(seq)
    for admitted in scheduler.admit():
        admitted.status = Status.PREFILLING
    return True


def test_whoever_has_least_is_next_and_of_each_the_oldest():
    scheduler = filled(*(of(owner) for owner in "aabbc"), max_running=1)
    assert owners(scheduler.running) == "a"
    assert owners(scheduler.waiting) == "bcab"
    assert [seq.arrival for seq in scheduler.waiting if seq.owner == "b"] == [2, 3]


def test_a_newcomer_gets_a_place_of_whoever_has_many_and_the_youngest_gives_it():
    crowd = [of("a") for _ in range(4)]
    scheduler = filled(*crowd, max_running=4)
    scheduler.add(of("b"))
    assert scheduler.choose_to_yield() is crowd[-1]
    assert give_way(scheduler)
    assert owners(scheduler.running) == "aaab"
    assert scheduler.waiting == [crowd[-1]]
    assert not give_way(scheduler)


def test_places_end_up_shared_evenly_and_then_nobody_yields():
    scheduler = filled(*(of("a") for _ in range(8)), max_running=8)
    for owner in "bbbbbbbbcccccccc":
        scheduler.add(of(owner))
    num_parked = sum(give_way(scheduler) for _ in range(100))
    assert sorted(owners(scheduler.running).count(owner) for owner in "abc") == [2, 3, 3]
    assert num_parked < 8


def test_one_place_each_is_left_alone():
    scheduler = filled(*(of(owner) for owner in "abcd"), max_running=4)
    scheduler.add(of("e"))
    assert not give_way(scheduler)
    assert owners(scheduler.waiting) == "e"


def test_a_larger_weight_gets_more_places():
    batch = [of("batch", weight=0.25) for _ in range(8)]
    scheduler = filled(*batch, max_running=8)
    for _ in range(8):
        scheduler.add(of("people", weight=1.0))
    while give_way(scheduler):
        pass
    assert owners(scheduler.running).count("people") == 6


def test_nobody_gives_way_while_there_is_room_or_nobody_waits():
    scheduler = filled(*(of("a") for _ in range(3)), max_running=4)
    assert scheduler.choose_to_yield() is None
    scheduler.add(of("b"))
    assert scheduler.choose_to_yield() is None


def test_a_newcomers_prompt_is_read_beside_any_number_of_another_owners():
    scheduler = filled(*(of("a", 100) for _ in range(7)), of("b", 5), max_running=8)
    chunks = {chunk.seq.owner: chunk.end for chunk in scheduler.plan().prefill}
    assert chunks["b"] == 5
    assert sum(chunk.end - chunk.start for chunk in scheduler.plan().prefill) == 12


def test_whoever_is_to_yield_does_nothing_more():
    crowd = [of("a", 100) for _ in range(2)]
    scheduler = filled(*crowd, max_running=2)
    crowd[1].status = Status.DECODING
    scheduler.add(of("b"))
    assert scheduler.choose_to_yield() is crowd[1]
    assert scheduler.plan().decode == []
    scheduler.remove(crowd[1])
    assert owners(scheduler.waiting) == "b"
    assert scheduler.choose_to_yield() is None
