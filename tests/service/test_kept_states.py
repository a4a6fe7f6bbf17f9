"""States outlive the process: the next turn after a restart reads only what is new."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager

import pytest

from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.protocol import Conversation, GenerationRequest, Message, SamplingParams
from falcon_mamba_app.service.local import kept_states
from falcon_mamba_app.state_store.objects import MEMORY, StateStore, open_store
from tests.support.services import collect, files_in, make_local_service, reply_text, settled

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=20)
QUESTIONS = [
    "Hello! My name is Zorvic, and I live in a small house by the sea. I like long walks.",
    "I have a dog.",
    "What is my name?",
]


@asynccontextmanager
async def serving(store: StateStore | None, **limits):
    service = make_local_service(open_files=store and files_in(store), **limits)
    await service.start()
    try:
        yield service
    finally:
        for _ in range(2):  # as the server does
            await service.close()


def request_for(contents: list[str], session_id: str = "s", **options) -> GenerationRequest:
    roles = ("user", "assistant")
    prompt = Conversation(Message(roles[i % 2], text) for i, text in enumerate(contents))
    options = {"keeps_state": True, **options}
    return GenerationRequest(prompt=prompt, sampling=GREEDY, session_id=session_id, **options)


async def say(service, contents: list[str], question: str, session_id: str = "s", **options):
    """One more turn of the conversation in `contents`; returns its Finished."""
    contents.append(question)
    events = await collect(service, request_for(contents, session_id, **options))
    contents.append(reply_text(events))
    return events[-1]


@pytest.fixture(scope="module")
def cold():
    """The conversation as it is without any saved state, and each turn's Finished."""

    async def talk():
        contents, ends = [], []
        async with serving(None) as service:
            for number, question in enumerate(QUESTIONS):
                ends.append(await say(service, contents, question, f"s{number}"))
        return contents, ends

    return asyncio.run(talk())


def written(folder) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


async def test_after_a_restart_the_next_turn_reads_only_what_is_new(tmp_path, cold):
    contents: list[str] = []
    async with serving(open_store(str(tmp_path))) as service:
        for question in QUESTIONS[:2]:
            before = await say(service, contents, question)
    async with serving(open_store(str(tmp_path))) as service:
        after = await say(service, contents, QUESTIONS[2])
        # All that was read and written before; the reply's last token was never fed.
        assert after.reused_tokens == before.prompt_tokens + before.completion_tokens - 1
        assert contents == cold[0]
        # States of another precision would be near, not equal: they have another name.
        assert "float32" in service._codec.model
        # Anybody else's session finds nothing of it.
        again = await collect(service, request_for(contents[:-1], "somebody else"))
        assert again[-1].reused_tokens == 0 and reply_text(again) == contents[-1]


async def test_answers_are_the_same_with_any_tier_emptied(tmp_path, cold):
    async with serving(open_store(str(tmp_path))) as service:
        host, kept = service._kept._host, service._kept
        for empties_host, empties_store in ((True, False), (False, True), (True, True)):
            session, contents = f"{empties_host} {empties_store}", []
            for question in QUESTIONS:
                kept._save(session)
                if empties_host:
                    host.forget(session)
                if empties_store:
                    await asyncio.wrap_future(kept.forget(session, _done()))
                end = await say(service, contents, question, session)
                is_first, are_empty = len(contents) == 2, empties_host and empties_store
                assert (end.reused_tokens == 0) == (is_first or are_empty)
            assert contents == cold[0]


def _done() -> Future[bool]:
    done: Future[bool] = Future()
    done.set_result(False)
    return done


async def test_an_idle_conversation_is_written_and_one_without_leave_is_not(tmp_path):
    async with serving(open_store(str(tmp_path))) as service:
        service._kept._idle_s = 0.01
        await say(service, [], QUESTIONS[0], "private", keeps_state=False)
        await say(service, [], QUESTIONS[0])
        await settled(lambda: len(service._kept._files) == 1)
        await settled(lambda: "replies" in written(tmp_path))
        assert len(written(tmp_path)) == 2
        assert await asyncio.wrap_future(service.forget("s"))
        assert written(tmp_path) == []
        assert not await asyncio.wrap_future(service.forget("s"))
    assert written(tmp_path) == []


async def test_a_state_that_must_go_from_host_memory_comes_back_from_the_store(cold):
    store, contents = open_store(MEMORY), []
    async with serving(store, snapshot_bytes=2_200_000) as service:  # two states
        for number, question in enumerate(QUESTIONS):
            end = await say(service, contents, question)
            assert number == 0 or end.reused_tokens > 0
            await say(service, [], "Tell me about cats.", f"other {number}")
            await settled(lambda: not service._kept._num_evicted)
            assert service._kept._host.newest("s") is None
    assert contents == cold[0]


async def test_a_damaged_state_costs_reading_and_one_warning(tmp_path, cold, caplog):
    contents = []
    async with serving(open_store(str(tmp_path))) as service:
        for question in QUESTIONS[:2]:
            await say(service, contents, question)
    for path in tmp_path.rglob("00*"):
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        async with serving(open_store(str(tmp_path))) as service:
            end = await say(service, contents, QUESTIONS[2])
    assert end.reused_tokens == 0 and contents == cold[0]
    assert len([text for text in caplog.messages if "set aside" in text]) == 1


async def test_a_store_that_does_not_answer_holds_a_reply_for_a_moment_and_nobody_else(
    cold, monkeypatch, caplog
):
    class Stuck(StateStore):
        def list(self, prefix):
            released.wait(30)
            return []

    released = threading.Event()
    monkeypatch.setattr(kept_states, "MAX_WAIT_S", 0.05)
    contents: list[str] = []
    try:
        async with serving(Stuck(open_store(MEMORY)._objects, "nowhere")) as service:
            with caplog.at_level(logging.WARNING):
                for question in QUESTIONS:
                    await say(service, contents, question)
            released.set()
        assert contents == cold[0]
        assert len([text for text in caplog.messages if "did not answer" in text]) == 1
    finally:
        released.set()


async def test_a_store_that_hangs_holds_the_end_for_a_moment_and_no_thread_holds_the_process(
    monkeypatch, caplog
):
    class Hanging(StateStore):
        def put(self, path, data):
            released.wait(30)

    released = threading.Event()
    monkeypatch.setattr(kept_states, "MAX_DRAIN_S", 0.05)
    try:
        with caplog.at_level(logging.WARNING):
            async with serving(Hanging(open_store(MEMORY)._objects, "s3://far")) as service:
                await say(service, [], QUESTIONS[0])
        assert [text for text in caplog.messages if "1 of 1 states were not written to s3" in text]
        hanging = [one for one in threading.enumerate() if one.name == "state-writer"]
        assert hanging and all(one.daemon for one in hanging)
    finally:
        released.set()


async def test_where_nobody_else_is_answered_a_state_is_written_soon_after_its_turn(tmp_path):
    now_s = 0.0
    async with serving(open_store(str(tmp_path))) as service:
        service._kept._clock = lambda: now_s
        await say(service, [], QUESTIONS[0])
        service._kept._unwritten["busy"] = math.inf  # a turn of somebody else
        now_s = 2 * kept_states.QUIET_S
        service._kept._write_idle()
        assert not len(service._kept._files)
        del service._kept._unwritten["busy"]
        service._kept._write_idle()
        await settled(lambda: len(service._kept._files) == 1)


async def test_the_state_of_an_earlier_moment_can_be_had_from_either_tier(tmp_path):
    async with serving(open_store(str(tmp_path))) as service:
        contents: list[str] = []
        ends = [await say(service, contents, question) for question in QUESTIONS[:2]]
        service._kept._save("s")
        ends.append(await say(service, contents, QUESTIONS[2]))
        service._kept._save("s")
        ids = await service._encode(request_for([*contents, "?"]))
        moments = [end.prompt_tokens + end.completion_tokens - 1 for end in ends[1:]]
        for _ in range(2):
            for num_tokens in moments:
                data = await service.export_state("s", ids[:num_tokens])
                assert await service.import_state("elsewhere", data) == num_tokens
            newest = await service.export_state("s")
            assert await service.import_state("elsewhere", newest) == moments[-1]
            service._kept._host.forget("s")
        with pytest.raises(NotFound):
            await service.export_state("s", [5, 6, 7])
        # A named moment stays when everything else must go, until it loses its name.
        assert await service.pin_state("s", ids[: moments[0]]) == moments[0]
        files = service._kept._files
        files._max_bytes = 1
        assert not files._make_room(1) and len(files) == 1
        await service.unpin_state("s", ids[: moments[0]])
        files._make_room(1)
        assert len(files) == 0
        assert await service.pin_state("s", [5, 6, 7]) == 0
