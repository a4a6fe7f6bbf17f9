"""The service over a model in this process: text ⇄ token ids, asyncio ⇄ the engine thread.

Requests are encoded on the event loop (long ones on a helper thread), handed to the worker, and
come back as the engine's events, one batch for each step. It knows no HTTP and touches no device.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from collections.abc import Sequence as SequenceABC
from concurrent.futures import Future

from falcon_mamba_app.engine.events import EngineEvent
from falcon_mamba_app.engine.matching import Matcher
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.worker import Worker
from falcon_mamba_app.errors import (
    EngineFailure,
    FalconMambaError,
    NotReady,
    NotSupported,
    Overloaded,
)
from falcon_mamba_app.protocol import (
    Continuation,
    GenerationEvent,
    GenerationRequest,
    ServiceStats,
    ServiceStatus,
    StateInspection,
    StateLook,
    Tokenizer,
)
from falcon_mamba_app.service.local import looking
from falcon_mamba_app.service.local.codec import StateCodec
from falcon_mamba_app.service.local.counters import Counters, process_memory
from falcon_mamba_app.service.local.encoding import Encoding
from falcon_mamba_app.service.local.inspecting import Inspector
from falcon_mamba_app.service.local.kept_states import KeptStates
from falcon_mamba_app.service.local.matching import Matching
from falcon_mamba_app.service.local.refusals import (
    refuse_beyond_limits,
    refuse_too_long,
    refuse_too_many_scores,
)
from falcon_mamba_app.service.local.startup import Startup
from falcon_mamba_app.service.local.stream import Stream
from falcon_mamba_app.settings import EngineLimits
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.reply_log import ReplyLog, checked_replies
from falcon_mamba_app.text.tokens import Tokens

logger = logging.getLogger(__name__)

MAX_STOP_S = 5.0
MAX_LAST_WORDS_S = 0.5


class LocalService:
    """Implements GenerationService over a Worker: an EngineWorker, or one that borrows GPUs."""

    def __init__(
        self,
        startup: Startup,
        encoder: PromptEncoder,
        reply_log: ReplyLog,
        worker: Worker,
        limits: EngineLimits,
        grammars: Grammars,
        kept: KeptStates,
    ) -> None:
        """`build.build_local` puts the parts together. `worker` runs what `startup` makes."""
        self._startup, self._worker, self._limits = startup, worker, limits
        self._encoder, self._reply_log, self._kept = encoder, reply_log, kept
        folder = startup.placement.checkpoint.folder
        self.tokenizer: Tokenizer = Tokens(encoder, folder, max_tokens=limits.max_prompt_tokens)
        self._encoding = Encoding(
            encoder,
            max_tokens=limits.max_prompt_tokens,
            vocab_size=startup.placement.checkpoint.config.vocab_size,
        )
        self._matching = Matching(grammars)
        self._status: ServiceStatus = "loading"
        self._failure: FalconMambaError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[int, Stream] = {}
        self._seq_ids = itertools.count(1)
        self._counters = Counters()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            started = self._worker.start(on_events=self._post, on_failure=self._post_failure)
            await asyncio.wrap_future(started)
            host = await asyncio.wrap_future(self._worker.call(lambda engine: engine.snapshots))
            self._codec = StateCodec.of(self._startup)
            self._kept.start(host, self._codec)
            self._inspector = Inspector(self, self._worker)
        except Exception as error:
            failure = (
                error
                if isinstance(error, FalconMambaError)
                else EngineFailure(f"the model cannot be loaded: {error}")
            )
            self._fail(failure)
            raise failure from error
        if self._status == "loading":  # unless it was closed meanwhile
            self._status = "ready"

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        self._refuse_unless_ready()
        started_s = time.monotonic()
        await self._kept.recall_replies(request)
        prompt_ids = await self._encode(request)
        await self._kept.fetch(request, prompt_ids)
        save_points = await self._encoding.save_points(request, prompt_ids)
        matcher = await self._matching.matcher(request.form)
        self._refuse_unless_ready()  # it may have failed meanwhile
        stream = self._open(request, prompt_ids, started_s, save_points, matcher)
        try:
            async for event in stream.events():
                yield event
        finally:
            self._close_stream(stream)

    async def _encode(self, request: GenerationRequest) -> SequenceABC[int]:
        """The prompt's ids, within the limits. Raises InvalidRequest."""
        vocab_size = self._startup.placement.checkpoint.config.vocab_size
        refuse_beyond_limits(request, self._limits, vocab_size=vocab_size)
        prompt_ids = await self._encoding.encode(request)
        refuse_too_long(len(prompt_ids), "tokens", self._limits)
        refuse_too_many_scores(len(prompt_ids), request.score_prompt)
        return prompt_ids

    def _open(
        self,
        request: GenerationRequest,
        prompt_ids: SequenceABC[int],
        started_s: float,
        save_points: tuple[int, ...],
        matcher: Matcher | None,
    ) -> Stream:
        """Hand the request to the engine. Raises Overloaded."""
        limit = self._limits.max_running + self._limits.max_waiting
        # A finished reply that the client still fetches holds no slot and no place.
        if sum(not stream.has_ended for stream in self._streams.values()) >= limit:
            raise Overloaded(
                f"{limit} requests are being answered or in line; try again in a few seconds"
            )
        seed = request.sampling.seed
        seq = Sequence(
            seq_id=next(self._seq_ids),
            prompt_token_ids=prompt_ids,
            sampling=request.sampling,
            seed=secrets.randbits(63) if seed is None else seed,
            session_id=request.session_id,
            is_aside=request.is_aside,
            reuse_id=request.reuse_id,
            begins_from=request.begins_from,
            save_points=save_points,
            owner=request.owner,
            weight=request.weight,
            score_prompt=request.score_prompt,
            matcher=matcher,
        )
        stream = Stream(
            seq.seq_id,
            request,
            prompt_ids,
            vocabulary=self._encoder.vocabulary,
            started_s=started_s,
            end_of_turn_text=self._encoder.end_of_turn_text,
            reply_as_shown=self._encoder.reply_as_shown,
            end_ids=self._startup.eos_token_ids,
        )
        self._streams[seq.seq_id] = stream
        self._kept.begin(request)
        self._counters.count_request(len(prompt_ids))
        self._worker.add(seq)
        return stream

    def _close_stream(self, stream: Stream) -> None:
        """Free the slot unless the reply has ended by itself, and record the reply's ids."""
        self._streams.pop(stream.seq_id, None)
        if not stream.has_ended:
            self._worker.abort(stream.seq_id)
        session_id = None if stream.request.is_aside else stream.request.session_id
        # A caller that continues from ids has them already, and hashing 100,000 takes 4 ms.
        continues_ids = isinstance(stream.request.prompt, Continuation)
        if session_id is not None and not stream.is_forgotten and not continues_ids:
            self._reply_log.record(session_id, stream.prompt_ids, stream.reply_ids)
        if not stream.is_forgotten:
            self._kept.end(stream.request)

    def _post(self, events: list[EngineEvent]) -> None:
        """Send all events of a step from the engine's thread to the loop, in one call."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed, so there are no readers
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _post_failure(self, failure: EngineFailure) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fail, failure)

    def _deliver(self, events: list[EngineEvent]) -> None:
        now_s = time.monotonic()
        self._counters.count_step(events, self._streams, now_s=now_s)
        for event in events:
            self._kept.break_even.note_event(event, now_s=now_s)
            if (stream := self._streams.get(event.seq_id)) is not None:
                stream.put(event, now_s)

    def _fail(self, failure: FalconMambaError) -> None:
        self._status, self._failure = "failed", failure
        for stream in self._streams.values():
            stream.fail(failure)

    def _refuse_unless_ready(self) -> None:
        self._refuse_while_loading()
        if self._failure is not None:
            raise EngineFailure(str(self._failure))

    def _refuse_while_loading(self) -> None:
        if self._status == "loading":
            raise NotReady(f"the model is still loading ({self._startup.progress.what}); try again")

    async def export_state(
        self, session_id: str, token_ids: SequenceABC[int] | None = None
    ) -> bytes:
        self._refuse_while_loading()  # after a failure, states in host memory can be saved
        replies = self._reply_log.export(session_id)
        snapshot = await looking.existing_state(self._worker, self._kept, session_id, token_ids)
        return await asyncio.to_thread(self._codec.to_bytes, snapshot, replies)

    async def publish_state(self, session_id: str) -> int:
        self._refuse_while_loading()
        snapshot = await looking.nearest_state(self._worker, self._kept, session_id, None)
        return 0 if snapshot is None else await self._kept.publish(session_id, snapshot)

    async def pin_state(self, session_id: str, token_ids: SequenceABC[int]) -> int:
        self._refuse_while_loading()
        snapshot = await looking.nearest_state(self._worker, self._kept, session_id, token_ids)
        return 0 if snapshot is None else await self._kept.pin(session_id, snapshot)

    async def unpin_state(self, session_id: str, token_ids: SequenceABC[int]) -> None:
        await self._kept.unpin(session_id, pack_token_ids([*token_ids, 0]))

    async def sketch(self, session_id: str) -> str | None:
        is_ready = self._status == "ready"
        return await looking.picture_of(self._worker, session_id) if is_ready else None

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        self._refuse_unless_ready()
        snapshot = await looking.existing_state(self._worker, self._kept, session_id)
        return await self._inspector.inspect(session_id, snapshot, look)

    async def import_state(self, session_id: str, data: bytes) -> int:
        self._refuse_unless_ready()
        if len(data) > self._limits.snapshot_bytes:
            raise NotSupported(
                f"this state takes {len(data)} bytes; this server keeps at most"
                f" {self._limits.snapshot_bytes} (--snapshot-bytes)"
            )
        snapshot, claimed = await asyncio.to_thread(self._codec.from_bytes, data)
        replies = checked_replies(claimed, vocab_size=self._codec.config.vocab_size)
        await looking.put_state(self._worker, session_id, snapshot)
        self._reply_log.restore(session_id, replies)
        return snapshot.num_tokens

    def forget(self, session_id: str) -> Future[bool]:
        had_ids = self._encoder.forget(session_id)
        for stream in self._streams.values():
            if stream.request.session_id == session_id:
                stream.is_forgotten = True
        dropped = self._worker.call(lambda engine: engine.forget(session_id) or had_ids)
        return self._kept.forget(session_id, dropped)

    def stats(self) -> ServiceStats:
        engine, progress = self._worker.stats, self._startup.progress
        detail = str(self._failure) if self._failure else progress.what
        return ServiceStats(
            status=self._status,
            detail="" if self._status == "ready" else detail,
            load_progress=progress.share if self._status == "loading" else None,
            model=self._startup.model_info,
            running=engine.running,
            waiting=engine.waiting,
            max_running=self._limits.max_running,
            snapshots=engine.snapshots,
            snapshot_bytes=engine.snapshot_bytes,
            max_snapshot_bytes=self._limits.snapshot_bytes,
            gpu_memory_bytes=engine.gpu_memory_bytes,
            peak_gpu_memory_bytes=engine.peak_gpu_memory_bytes,
            **self._counters.as_stats(now_s=time.monotonic()),
            **process_memory(),
        )

    async def _let_streams_end(self) -> None:
        """Wait a moment until their readers have seen the end: then their states can be kept."""
        deadline_s = time.monotonic() + MAX_LAST_WORDS_S
        while self._streams and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._fail(EngineFailure("the server is stopping"))
        self._encoding.close()
        self._matching.close()
        await self._let_streams_end()
        if not await asyncio.to_thread(self._worker.stop, timeout_s=MAX_STOP_S):
            logger.warning("the engine did not stop within %.0f s; leaving it", MAX_STOP_S)
        await self._kept.stop()
