"""States in two tiers, host memory and a store that outlives the process, found as one.

Before a request goes to the engine, a state in the store that has read more of its prompt than any
in host memory is fetched into host memory. So the engine never waits for a disk. A session's newest
state is written when nobody has used the session for a while, soon after its turn where nobody else
is answered, when its states must go from host memory, and when the server stops. What is lost with
a killed process is read again. Answers are the same with any tier emptied.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.engine.states.store import Snapshot, SnapshotStore
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, GenerationRequest
from falcon_mamba_app.service.local.background import Background
from falcon_mamba_app.service.local.break_even import MIN_TOKENS, BreakEven
from falcon_mamba_app.service.local.codec import StateCodec
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.names import StateName
from falcon_mamba_app.text.reply_log import ReplyLog, checked_replies

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

IDLE_S, LOOK_S = 15.0, 1.0
QUIET_S = 1.0  # the same, while no such session is being answered
MAX_WAIT_S = 10.0  # for the store, before a prompt is read instead
MAX_DRAIN_S = 8.0
MAX_EVICTED = 8  # states that wait to be written while their memory is needed already


class KeptStates:
    """The states of sessions whose requests say `keeps_state`."""

    def __init__(
        self,
        open_files: Callable[[str], StateFiles] | None,
        reply_log: ReplyLog,
        *,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_files` takes the name of the model that the states belong to; None keeps none."""
        self._open_files, self._reply_log = open_files, reply_log
        self._idle_s, self._clock, self.break_even = idle_s, clock, BreakEven()
        self._readers = Background(2, "state-reader")
        self._writer = Background(1, "state-writer")
        # Sessions with turns that are in no file yet, and since when they are idle.
        self._unwritten: dict[str, float] = {}
        self._num_evicted = 0
        self._is_saving = False
        self._forgetting: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self._files: StateFiles | None = None

    def start(self, host: SnapshotStore, codec: StateCodec) -> None:
        """Begin to look after the states in `host`. On the event loop."""
        if self._open_files is None:
            return
        self._host, self._codec = host, codec
        self._files = self._open_files(codec.model)
        self._readers.submit(self._files.read_index)
        host.on_evict = self._on_evict
        self._watching = asyncio.create_task(self._watch())

    def begin(self, request: GenerationRequest) -> None:
        """A turn of the session begins; its state will be another one."""
        if not request.is_aside and (session_id := self._kept_session(request)) is not None:
            self._unwritten[session_id] = math.inf

    def end(self, request: GenerationRequest) -> None:
        """A turn of the session has ended."""
        if not request.is_aside and (session_id := self._kept_session(request)) is not None:
            self._unwritten[session_id] = self._clock()

    async def recall_replies(self, request: GenerationRequest) -> None:
        """Know the ids of the session's replies again, if an earlier process wrote them. A text
        may be tokenised to others, which no state has read.
        """
        session_id, files = self._kept_session(request), self._files
        if session_id is None or files is None or self._reply_log.knows(session_id):
            return
        if isinstance(request.prompt, Conversation) and files.may_have(session_id):
            found = await self._ask(partial(self._read_replies, session_id), files)
            if found and not self._reply_log.knows(session_id):
                self._reply_log.restore(session_id, found)

    async def fetch(self, request: GenerationRequest, prompt_ids: Sequence[int]) -> None:
        """Bring the stored state that has read most of the prompt into host memory, if it spares
        enough reading: of the session, or else of the book that it begins from.
        """
        files, names = self._files, [self._kept_session(request), request.begins_from]
        if files is None or names == [None, None] or request.score_prompt is not None:
            return
        packed = pack_token_ids(prompt_ids)
        for name in filter(None, names):
            known = self.break_even.min_tokens
            known += max(self._host.num_known(one, packed) for one in filter(None, names))
            if known < len(prompt_ids) and files.may_have(name, beyond=known):
                snapshot = await self.stored(name, packed, beyond=known)
                if snapshot is not None:
                    self._host.put(name, snapshot.packed_token_ids, snapshot.state)

    async def stored(
        self, session_id: str, packed_ids: bytes | None, *, beyond: int = 0
    ) -> Snapshot | None:
        """The stored state with the longest prefix of these ids, or the newest one; None if it has
        not read more than `beyond` tokens.
        """
        if self._files is None:
            return None
        read = partial(self._read, self._files, session_id, packed_ids, beyond=beyond)
        return await self._ask(read, self._files)

    async def publish(self, session_id: str, snapshot: Snapshot) -> int:
        """Write the state now; its tokens, 0 if it is not written."""
        return await self._write_now(session_id, snapshot, is_pinned=False)

    async def pin(self, session_id: str, snapshot: Snapshot) -> int:
        """Write the state now, and keep it whatever else goes; its tokens, 0 if it is not kept."""
        return await self._write_now(session_id, snapshot, is_pinned=True)

    async def _write_now(self, session_id: str, snapshot: Snapshot, *, is_pinned: bool) -> int:
        if self._files is None or session_id in self._forgetting:
            return 0
        work = partial(self._write, self._files, session_id, snapshot, is_pinned=is_pinned)
        is_kept = await asyncio.get_running_loop().run_in_executor(self._writer, work)
        return snapshot.num_tokens if is_kept else 0

    async def unpin(self, session_id: str, packed_ids: bytes) -> None:
        """Let the state with the longest prefix of these ids go with its age again."""
        files = self._files
        if files is None:
            return

        def let_go() -> None:
            state = files.longest_prefix(session_id, packed_ids)
            if state is not None:
                files.unpin(state)

        await asyncio.get_running_loop().run_in_executor(self._writer, let_go)

    def forget(self, session_id: str, dropped: Future[bool]) -> Future[bool]:
        """Delete the session's files; tells whether there were any, or was something to drop."""
        files = self._files
        if files is None:
            return dropped
        self._unwritten.pop(session_id, None)
        self._forgetting.add(session_id)

        def delete() -> bool:
            try:
                return files.forget(session_id) | dropped.result()
            finally:
                self._forgetting.discard(session_id)

        try:
            # After all that waits to be written, so that nothing of the session comes after it.
            return self._writer.submit(delete)
        except RuntimeError:  # it has stopped
            return dropped

    async def stop(self) -> None:
        """Write what is in no file yet, as far as the time allows. A second call does nothing."""
        watching, self._watching = self._watching, None
        if watching is None:
            return
        watching.cancel()
        self._host.on_evict = None
        assert self._files is not None, "somebody watches over no files"
        # One that is being written hangs perhaps: nothing comes after it.
        works = [self._writer.submit(lambda: None)] if self._is_saving else []
        works += [self._writer.submit(self._save, one) for one in list(self._unwritten)]
        waits = [asyncio.wrap_future(work) for work in works]
        if waits:
            _, late = await asyncio.wait(waits, timeout=MAX_DRAIN_S)
            if late:
                logger.warning(
                    "%d of %d states were not written to %s within %.0f s; their conversations are"
                    " read again",
                    len(late),
                    len(waits),
                    self._files.place,
                    MAX_DRAIN_S,
                )
        self._readers.shutdown()
        self._writer.shutdown()

    def _kept_session(self, request: GenerationRequest) -> str | None:
        """The session whose state outlives the process, if it may and is not being deleted."""
        session_id = request.session_id
        if self._files is None or not request.keeps_state or session_id in self._forgetting:
            return None
        return session_id

    async def _watch(self) -> None:
        """Write the states of sessions that have become idle, one after the other."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._idle_s))
            await asyncio.gather(*self._write_idle())

    def _write_idle(self) -> list[asyncio.Future[None]]:
        """Begin to write the states of idle sessions, each after the one before."""
        now_s, loop = self._clock(), asyncio.get_running_loop()
        is_quiet = math.inf not in self._unwritten.values()
        idle_s = min(QUIET_S, self._idle_s) if is_quiet else self._idle_s
        idle = [one for one, since_s in list(self._unwritten.items()) if now_s - since_s >= idle_s]
        return [loop.run_in_executor(self._writer, self._save, one) for one in idle]

    def _on_evict(self, session_id: str, snapshot: Snapshot) -> None:
        """Write a state that goes from host memory, unless too many wait. From any thread."""
        if session_id not in self._unwritten or self._num_evicted >= MAX_EVICTED:
            return
        with contextlib.suppress(RuntimeError):  # it has stopped
            self._writer.submit(self._save_evicted, session_id, snapshot)
            self._num_evicted += 1

    def _save_evicted(self, session_id: str, snapshot: Snapshot) -> None:
        try:
            self._save(session_id, snapshot)
        finally:
            self._num_evicted -= 1

    def _save(self, session_id: str, evicted: Snapshot | None = None) -> None:
        """Write the session's newest state and its replies, on the writer's thread."""
        since_s, files = self._unwritten.pop(session_id, None), self._files
        snapshot = self._host.newest(session_id) or evicted
        is_worth_it = snapshot is not None and snapshot.num_tokens >= MIN_TOKENS
        if files is None or since_s is None or snapshot is None or not is_worth_it:
            return
        self._is_saving = True
        try:
            is_written = self._write(files, session_id, snapshot)
        except Exception:
            logger.exception("a state could not be written")
            return
        finally:
            self._is_saving = False
        if not is_written and files.is_paused:
            self._unwritten.setdefault(session_id, self._clock())  # another time

    def _write(
        self,
        files: StateFiles,
        session_id: str,
        snapshot: Snapshot,
        *,
        is_pinned: bool = False,
    ) -> bool:
        make_data = partial(self._codec.to_bytes, snapshot, [])
        packed_ids = snapshot.packed_token_ids
        if not files.write(session_id, packed_ids, make_data, is_pinned=is_pinned):
            return False
        replies = self._reply_log.export(session_id)
        if replies:
            files.write_replies(session_id, json.dumps(replies, separators=(",", ":")).encode())
        return True

    def _read(
        self, files: StateFiles, session_id: str, packed_ids: bytes | None, *, beyond: int
    ) -> Snapshot | None:
        """The best stored state, checked; on a reader's thread."""
        state: StateName | None
        if packed_ids is None:
            state = files.newest(session_id)
        else:
            state = files.longest_prefix(session_id, packed_ids)
        if state is None or state.num_tokens <= beyond:
            return None
        started_s = time.monotonic()
        data = files.read(state)
        if data is None:
            return None
        try:
            snapshot, _ = self._codec.from_bytes(data)
        except InvalidRequest:
            files.set_aside(state)
            return None
        if packed_ids is not None and not packed_ids.startswith(snapshot.packed_token_ids):
            files.set_aside(state)
            return None
        staged = self._codec.staged(snapshot)
        self.break_even.note_fetch(time.monotonic() - started_s)
        return staged

    def _read_replies(self, session_id: str) -> list[tuple[bytes, array[int]]] | None:
        data = None if self._files is None else self._files.read_replies(session_id)
        try:
            claimed = json.loads(data) if data else []
            return checked_replies(claimed, vocab_size=self._codec.config.vocab_size)
        except (ValueError, RecursionError, InvalidRequest):
            return None

    async def _ask(self, work: Callable[[], Result], files: StateFiles) -> Result | None:
        """What the store says; None if it takes too long, and then it is not asked for a while."""
        asked = asyncio.get_running_loop().run_in_executor(self._readers, work)
        try:
            return await asyncio.wait_for(asked, MAX_WAIT_S)
        except TimeoutError:
            logger.warning(
                "%s did not answer within %.0f s; a conversation is read again",
                files.place,
                MAX_WAIT_S,
            )
            files.pause()
            return None
