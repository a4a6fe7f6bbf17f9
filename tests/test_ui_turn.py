import asyncio
from contextlib import aclosing

import pytest

from falcon_mamba_app.errors import EngineFailure
from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    PrefillProgress,
    ServiceStats,
    TextDelta,
    Waiting,
)
from falcon_mamba_app.ui.turn import Reply, Turn, describe
from falcon_mamba_app.ui.writing import update_interval_s


def finished(tokens: int, *, reason="stop", **figures) -> Finished:
    return Finished(
        reason=reason, prompt_tokens=10, reused_tokens=4, completion_tokens=tokens, **figures
    )


def reply_after(*events, now_s: float = 1.0) -> Reply:
    reply = Reply(meter=ReplyMeter(started_s=0.0))
    reply.apply_all(list(events), now_s=now_s)
    return reply


class Script:
    """A stream of events that waits where the script says None, and knows when it was closed."""

    def __init__(self, *steps) -> None:
        self.steps = steps
        self.go_on = asyncio.Event()
        self.is_closed = False

    async def events(self):
        try:
            for step in self.steps:
                if step is None:
                    await self.go_on.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.is_closed = True


async def test_events_that_come_together_make_one_batch():
    deltas = [TextDelta(f"{i} ", i) for i in range(1, 51)]
    script = Script(Accepted(10, 0), *deltas, finished(50))
    batches = [batch async for batch in Turn(script.events()).batches()]
    assert sum(batches, []) == [Accepted(10, 0), *deltas, finished(50)]
    assert len(batches) == 1


async def test_the_first_text_is_told_without_waiting_for_the_interval():
    script = Script(PrefillProgress(1, 10), None, TextDelta("a", 1), finished(1))
    turn = Turn(script.events())
    async with aclosing(turn.batches(interval_s=3_600)) as batches:
        assert await anext(batches) == [PrefillProgress(1, 10)]
        script.go_on.set()
        async with asyncio.timeout(5):
            assert (await anext(batches))[0] == TextDelta("a", 1)


async def test_text_after_the_first_waits_for_the_interval_but_the_end_does_not():
    script = Script(TextDelta("a", 1), None, TextDelta("b", 2), TextDelta("c", 3), finished(3))
    turn = Turn(script.events())
    async with aclosing(turn.batches(interval_s=3_600)) as batches:
        assert await anext(batches) == [TextDelta("a", 1)]
        script.go_on.set()
        async with asyncio.timeout(5):
            assert await anext(batches) == [TextDelta("b", 2), TextDelta("c", 3), finished(3)]


async def test_stopping_closes_the_service_s_generator_at_once():
    script = Script(TextDelta("a", 1), None)
    turn = Turn(script.events())
    batches = turn.batches(interval_s=3_600)
    await anext(batches)
    turn.stop()
    assert [batch async for batch in batches] == []
    assert script.is_closed


async def test_a_turn_stopped_before_it_began_never_starts_the_service():
    script = Script(TextDelta("a", 1))
    turn = Turn(script.events())
    turn.stop()
    assert [batch async for batch in turn.batches()] == []


async def test_closing_the_batches_closes_the_service_s_generator():
    script = Script(TextDelta("a", 1), None)
    batches = Turn(script.events()).batches()
    await anext(batches)
    await batches.aclose()
    assert script.is_closed


async def test_an_error_comes_after_the_text_that_came_before_it():
    script = Script(TextDelta("a", 1), EngineFailure("the device failed"))
    batches = Turn(script.events()).batches()
    assert await anext(batches) == [TextDelta("a", 1)]
    with pytest.raises(EngineFailure):
        await anext(batches)


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], "Sending"),
        ([Waiting(3)], "Waiting in line: number 3"),
        ([Accepted(1_000, 0), PrefillProgress(437, 1_000)], "Reading 43 % of 1,000 tokens"),
        ([Accepted(None, None)], "Reading"),
        ([TextDelta("a", 1)], "Writing"),
        ([TextDelta("a", 1), finished(1)], "Done"),
        ([TextDelta("a", 512), finished(512, reason="length")], "Done: the limit of 512 new"),
    ],
)
def test_the_status_line_says_what_is_going_on(events, sentence):
    assert describe(reply_after(*events)).startswith(sentence)


def test_a_finished_reply_shows_the_service_s_own_times():
    reply = reply_after(TextDelta("a", 1), finished(11, ttft_s=0.25, decode_s=2.0))
    assert (reply.ttft_s, reply.tokens_per_s) == (0.25, 5.0)


def test_a_reply_too_short_for_a_speed_of_its_last_second_shows_its_own():
    reply = reply_after(TextDelta("a", 1))
    assert reply.tokens_per_s_now is None
    reply = reply_after(TextDelta("a", 1), finished(11, decode_s=2.0))
    assert reply.tokens_per_s_now == 5.0


def test_while_reading_the_context_is_what_has_been_read():
    assert reply_after(Accepted(1_000, 100)).context_tokens == 100
    assert reply_after(Accepted(1_000, 100), PrefillProgress(612, 1_000)).context_tokens == 612


def test_a_reply_counts_its_context_and_what_was_reused():
    reply = reply_after(Accepted(10, 4), TextDelta("a b", 2))
    assert (reply.context_tokens, reply.reused_tokens, reply.text) == (12, 4, "a b")


@pytest.mark.parametrize(
    ("running", "num_messages", "updates_per_s"),
    [(None, 0, 12), (1, 20, 12), (12, 200, 12), (48, 0, 3), (1, 400, 6)],
)
def test_crowds_and_long_conversations_are_updated_less_often(running, num_messages, updates_per_s):
    stats = ServiceStats(status="ready", running=running)
    interval_s = update_interval_s(stats, num_messages=num_messages)
    assert interval_s == pytest.approx(1 / updates_per_s)


def test_counts_a_foreign_server_does_not_tell_stay_unknown():
    reply = reply_after(Accepted(None, None), TextDelta("a", 1))
    assert (reply.context_tokens, reply.reused_tokens) == (None, None)
