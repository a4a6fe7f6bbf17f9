"""The speed at which prompts are read, from the events of the engine's steps."""

from dataclasses import dataclass

import pytest

from falcon_mamba_app.engine.events import Prefilled
from falcon_mamba_app.service.local.reading_speed import ReadingSpeed


@dataclass
class Request:
    started_s: float


def read(seq_id: int, num_tokens: int) -> Prefilled:
    return Prefilled(seq_id, num_tokens, num_tokens, [])


def test_a_step_began_when_its_prompt_came_or_the_step_before_ended():
    speed, asked = ReadingSpeed(), {1: Request(100.0)}
    assert speed.tokens_per_s is None
    speed.note([read(1, 128)], asked, now_s=110.0)
    assert speed.tokens_per_s == pytest.approx(12.8)
    speed.note([read(1, 128)], asked, now_s=120.0)  # the next chunk, at the same speed
    assert speed.tokens_per_s == pytest.approx(12.8)
    speed.note([read(1, 128)], asked, now_s=125.0)  # twice as fast: the figure follows slowly
    assert 12.8 < speed.tokens_per_s < 25.6


def test_an_idle_hour_makes_nothing_slower():
    speed, asked = ReadingSpeed(), {1: Request(0.0)}
    speed.note([read(1, 100)], asked, now_s=1.0)
    asked[2] = Request(3_600.0)
    speed.note([read(2, 100)], asked, now_s=3_601.0)
    assert speed.tokens_per_s == pytest.approx(100)


def test_prompts_of_one_step_count_together_and_few_tokens_not_at_all():
    speed, asked = ReadingSpeed(), {1: Request(0.0), 2: Request(1.0)}
    speed.note([read(1, 31)], asked, now_s=1.0)
    speed.note([], asked, now_s=2.0)
    assert speed.tokens_per_s is None
    speed.note([read(1, 20), read(2, 20)], asked, now_s=4.0)
    assert speed.tokens_per_s == pytest.approx(20)


def test_a_request_that_is_gone_tells_nothing():
    speed = ReadingSpeed()
    speed.note([read(1, 100)], {}, now_s=4.0)
    assert speed.tokens_per_s is None
