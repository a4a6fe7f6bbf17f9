"""A stored state is fetched where that takes less time than reading."""

from __future__ import annotations

from falcon_mamba_app.engine.events import Prefilled
from falcon_mamba_app.service.local.break_even import MIN_TOKENS, BreakEven


def read(break_even: BreakEven, *, tokens_per_s: float, seq_id: int = 1) -> None:
    """Three chunks of one prompt."""
    for number in range(3):
        event = Prefilled(seq_id, 512 * (number + 1), 512, [])
        break_even.note_event(event, now_s=number * 512 / tokens_per_s)


def test_nothing_is_known_at_first_and_little_is_fetched_already():
    break_even = BreakEven()
    assert break_even.min_tokens == MIN_TOKENS
    break_even.note_fetch(1.0)
    assert break_even.min_tokens == MIN_TOKENS


def test_the_faster_the_model_reads_and_the_slower_the_store_the_more_a_state_must_spare():
    break_even = BreakEven()
    read(break_even, tokens_per_s=35_000)
    break_even.note_fetch(0.012)
    assert break_even.min_tokens == 420
    slow = BreakEven()
    read(slow, tokens_per_s=35_000)
    slow.note_fetch(0.37)
    assert 12_900 < slow.min_tokens < 13_000


def test_chunks_of_different_prompts_say_nothing_about_the_speed():
    break_even = BreakEven()
    break_even.note_fetch(1.0)
    for seq_id in range(2_000):
        break_even.note_event(Prefilled(seq_id, 512, 512, []), now_s=float(seq_id))
    assert break_even.min_tokens == MIN_TOKENS
