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
from falcon_mamba_app.ui.conversation import turn as turns
from falcon_mamba_app.ui.conversation.begin_turn import update_interval_s
from falcon_mamba_app.ui.conversation.reply import Reply, describe
from falcon_mamba_app.ui.conversation.turn import Turn
from tests.support.services import settled


def finished(tokens: int, *, reason="stop", **figures) -> Finished:
    return Finished(
        reason=reason, prompt_tokens=10, reused_tokens=4, completion_tokens=tokens, **figures
    )


def reply_after(*events, now_s: float = 1.0) -> Reply:
    reply = Reply(meter=ReplyMeter(started_s=0.0))
    for event in events:
        reply.apply(event, now_s=now_s)
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


class Target:
    """Notes what a turn tells its session."""

    def __init__(self) -> None:
        self.text = ""
        self.ends: list[tuple[str, BaseException | None]] = []

    def take(self, reply):
        self.text = reply.text

    def end(self, reply, error):
        self.ends.append((reply.phase, error))
        self.take(reply)

    def update(self, reply, *, panel):
        raise NotImplementedError


def begin(*steps, alone_s=60.0) -> tuple[Turn, Script, Target]:
    script, target = Script(*steps), Target()
    return Turn(script.events(), target, alone_s=alone_s), script, target


async def texts_of(turn, page="page", **options) -> list[str]:
    return [reply.text async for reply in turn.watch(page, **options)]


async def test_events_that_come_together_make_one_update():
    deltas = [TextDelta(f"{i} ", i) for i in range(1, 51)]
    turn, _, target = begin(Accepted(10, 0), *deltas, finished(50))
    texts = await texts_of(turn)
    assert texts[-1].split() == [str(i) for i in range(1, 51)]
    assert len(texts) <= 3
    assert target.ends == [("finished", None)]


async def test_the_first_text_is_told_without_waiting_for_the_interval():
    turn, script, _ = begin(PrefillProgress(1, 10), None, TextDelta("a", 1), None)
    async with aclosing(turn.watch("page", interval_s=3_600)) as replies:
        assert (await anext(replies)).text == ""
        script.go_on.set()
        async with asyncio.timeout(60):
            assert (await anext(replies)).text == "a"
    turn.stop()


async def test_text_after_the_first_waits_for_the_interval_but_the_end_does_not():
    turn, script, _ = begin(TextDelta("a", 1), None, TextDelta("b", 2), finished(2))
    async with aclosing(turn.watch("page", interval_s=3_600)) as replies:
        assert (await anext(replies)).text == ""
        assert (await anext(replies)).text == "a"
        script.go_on.set()
        async with asyncio.timeout(60):
            last = await anext(replies)
    assert (last.text, last.phase) == ("ab", "finished")


async def test_stopping_closes_the_service_s_generator_at_once():
    turn, script, target = begin(TextDelta("a", 1), None)
    async with asyncio.timeout(60):
        async for reply in turn.watch("page", interval_s=3_600):
            if reply.text:
                turn.stop()
    assert script.is_closed
    assert (target.text, target.ends) == ("a", [("stopped", None)])


async def test_a_turn_stopped_before_it_began_never_starts_the_service():
    turn, script, target = begin(TextDelta("a", 1))
    turn.stop()
    assert set(await texts_of(turn)) == {""}
    assert target.ends == [("stopped", None)]


async def test_a_page_that_goes_leaves_the_reply_running_and_finds_it_again():
    turn, script, target = begin(TextDelta("a", 1), None, TextDelta("b", 2), finished(2))
    async with aclosing(turn.watch("before")) as replies:
        await anext(replies)
        assert (await anext(replies)).text == "a"
    assert not script.is_closed
    async with aclosing(turn.watch("after")) as replies:
        assert (await anext(replies)).text == "a"
        script.go_on.set()
        assert [reply.text async for reply in replies][-1] == "ab"
    assert target.ends == [("finished", None)]


async def test_a_reply_ends_at_its_end_though_nobody_watches():
    turn, _, target = begin(TextDelta("a", 1), finished(1))
    await settled(lambda: turn.is_over)
    assert (target.text, target.ends) == ("a", [("finished", None)])


async def test_a_reply_that_nobody_comes_back_to_is_cut():
    turn, script, target = begin(TextDelta("a", 1), None, alone_s=0.05)
    async with aclosing(turn.watch("page")) as replies:
        await anext(replies)
        await asyncio.sleep(0.1)  # while it is watched it is not alone
        assert not turn.is_over
    await settled(lambda: turn.is_over)
    assert script.is_closed and turn.is_cut
    assert target.ends == [("stopped", None)]


async def test_a_reply_that_was_never_watched_is_cut():
    turn, script, _ = begin(TextDelta("a", 1), None, alone_s=0.0)
    await settled(lambda: turn.is_over)
    assert script.is_closed and turn.is_cut


async def test_two_pages_see_the_same_reply():
    turn, script, _ = begin(TextDelta("a", 1), None, TextDelta("b", 2), finished(2))
    first, second = (asyncio.create_task(texts_of(turn, page)) for page in ("one", "two"))
    await settled(lambda: turn.is_watched_by("one") and turn.is_watched_by("two"))
    script.go_on.set()
    assert (await first)[-1] == (await second)[-1] == "ab"


async def test_a_page_that_watches_anew_ends_its_older_watch_and_not_the_reply():
    turn, script, target = begin(TextDelta("a", 1), None, finished(1))
    older = asyncio.create_task(texts_of(turn))
    await settled(lambda: turn.is_watched_by("page"))
    newer = asyncio.create_task(texts_of(turn))
    async with asyncio.timeout(60):
        await older
    assert turn.is_watched_by("page") and not turn.is_over
    script.go_on.set()
    assert (await newer)[-1] == "a"


async def test_a_dropped_turn_tells_its_session_nothing_more():
    turn, script, target = begin(TextDelta("a", 1), None)
    watching = asyncio.create_task(texts_of(turn))
    await settled(lambda: turn.is_watched_by("page"))
    turn.drop()
    await watching
    await settled(lambda: turn.is_over)
    assert script.is_closed
    assert target.ends == []


async def test_an_error_comes_after_the_text_that_came_before_it():
    error = EngineFailure("the device failed")
    turn, _, target = begin(TextDelta("a", 1), error)
    assert (await texts_of(turn))[-1] == "a"
    assert target.ends == [("failed", error)]


async def test_a_silent_reply_gives_a_sign_of_life(monkeypatch):
    monkeypatch.setattr(turns, "KEEPALIVE_S", 0.01)
    turn, _, _ = begin(Waiting(1), None)
    async with aclosing(turn.watch("page", interval_s=0.0)) as replies:
        async with asyncio.timeout(60):
            for _ in range(4):
                await anext(replies)
    turn.stop()


async def test_a_page_that_reads_slowly_skips_what_it_missed():
    turn, script, _ = begin(*(TextDelta("x", i) for i in range(1, 1_001)), finished(1_000))
    async with aclosing(turn.watch("page", interval_s=0.0)) as replies:
        await anext(replies)
        await settled(lambda: turn.is_over)
        assert [len(reply.text) async for reply in replies] == [1_000]


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


def test_a_reply_that_is_over_has_no_speed_now():
    reply = Reply(meter=ReplyMeter(started_s=0.0))
    for num_tokens in (1, 11):
        reply.apply(TextDelta("a", num_tokens), now_s=float(num_tokens))
    assert reply.tokens_per_s_now == 1.0
    reply.apply(finished(11, decode_s=2.0), now_s=12.0)
    assert reply.tokens_per_s_now is None
    assert reply.tokens_per_s == 5.0


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
