"""A reply written into the library while the service writes it: a piece at a time, then its end.

The pieces are written behind the reply, which waits for none of them; only its end is awaited, so
that a reply that is shown as done has reached the disk. Where the library fails, the recording ends
and the reply goes on: the session's next save brings it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.library import MessageRecord, ReplyEnd
from falcon_mamba_app.library.tree import Status
from falcon_mamba_app.protocol import Finished, GenerationEvent, Prompt, TextDelta
from falcon_mamba_app.ui.conversation.exact_ids import stored_ids
from falcon_mamba_app.ui.conversation.session import Session
from falcon_mamba_app.ui.conversation.shelf import Shelf

# The most of a reply that a killed process loses; each piece costs a commit of under a millisecond.
PIECE_S = 0.25
TEXT_S = 2.0  # the same of the completion page, whose whole text is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reply answers, and how."""

    conversation_id: str
    reply_id: str
    parent_id: str
    prompt: Prompt
    settings: str = ""  # in words, for the page
    begun: str = ""  # the words of an earlier reply that this one continues
    model: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    system_prompt: str = ""


class Recording:
    """Of one reply. `before` is what must be written first: the message that it answers."""

    def __init__(self, shelf: Shelf, asked: Asked, before: Awaitable[bool]) -> None:
        self._library, self._shelf, self._asked = shelf.library, shelf, asked
        self._before = asyncio.ensure_future(before)
        self._parts: list[str] = [asked.begun] if asked.begun else []
        self._written = 0  # parts
        self._started_s = time.monotonic()
        self._reply: MessageRecord | None = None
        self._seq = 0
        self._has_failed = False
        self._flushing: asyncio.Task[None] | None = None
        self._is_over = asyncio.Event()
        shelf.writing = asked.reply_id

    async def follow(
        self, events: AsyncGenerator[GenerationEvent, None]
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The same events, once they are on their way to the library."""
        status: Status = "failed"
        finished: Finished | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, TextDelta):
                        self._add(event.text)
                    elif isinstance(event, Finished):
                        status, finished = "complete", event
                        await self._end(status, finished)
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            status = "stopped" if finished is None else status
            raise
        finally:
            if finished is None:
                self._shelf.keep_running(self._end(status, None))

    def _add(self, text: str) -> None:
        if not text:
            return
        self._parts.append(text)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        if self._reply is not None:  # the first words at once
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), PIECE_S)
        await self._flush()

    async def _flush(self) -> None:
        """Write the parts that are new."""
        if self._has_failed:
            return
        try:
            if self._reply is None:
                self._has_failed = not await self._before
                if self._has_failed:
                    return
                asked = self._asked
                self._reply = await self._library.begin_reply(
                    self._shelf.owner,
                    asked.conversation_id,
                    parent_id=asked.parent_id,
                    model=asked.model,
                    sampling=asked.sampling,
                    id=asked.reply_id,
                )
            parts, self._written = self._parts[self._written :], len(self._parts)
            if parts and self._reply.generation is not None:
                seq, self._seq = self._seq, self._seq + 1
                await self._library.extend_reply(
                    self._shelf.owner, self._reply.generation, seq, "".join(parts)
                )
        except FalconMambaError:
            self._has_failed = True  # `Kept.save` tells it when it fails too

    async def _end(self, status: Status, finished: Finished | None) -> None:
        """Write the end, and give the message back to `save`."""
        self._is_over.set()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await asyncio.gather(self._before, return_exceptions=True)
        text = "".join(self._parts)
        if text and self._reply is None:
            await self._flush()
        reply = self._reply
        if text and reply is not None and reply.generation is not None:
            end = self._known_end(status, finished, text)
            try:
                kept = await self._library.finish_reply(self._shelf.owner, reply.generation, end)
            except FalconMambaError:
                self._has_failed = True
            else:
                self._shelf.hold_reply(kept, text)
        self._shelf.writing = None

    def _known_end(self, status: Status, finished: Finished | None, text: str) -> ReplyEnd:
        asked = self._asked
        duration_s = time.monotonic() - self._started_s
        extra: dict[str, Any] = {"settings": asked.settings}
        if finished is None:
            return ReplyEnd(status=status, text=text, duration_s=duration_s, extra=extra)
        context = finished.prompt_tokens
        extra |= {"prompt_tokens": context, "reused_tokens": finished.reused_tokens}
        token_ids, about_ids = stored_ids(finished.packed_ids, asked.prompt, asked.system_prompt)
        return ReplyEnd(
            status=status,
            text=text,
            token_ids=token_ids,
            num_tokens=finished.completion_tokens,
            context_tokens=None if context is None else context + finished.completion_tokens,
            finish_reason=finished.reason,
            ttft_s=finished.ttft_s,
            duration_s=duration_s,
            tokens_per_s=_tokens_per_s(finished),
            extra=extra | about_ids,
        )


async def save_while_written(session: Session) -> None:
    """Keep the completion page's text: at the beginning of a continuation, now and then while the
    model writes it, and at its end.
    """
    turn = session.turn
    while turn is not None and session.turn is turn:
        session.catch_up()
        await session.save()
        with suppress(TimeoutError):
            await asyncio.wait_for(turn.ended.wait(), TEXT_S)
    await session.save()


def _tokens_per_s(finished: Finished) -> float | None:
    if not finished.decode_s or finished.completion_tokens < 2:
        return None
    return (finished.completion_tokens - 1) / finished.decode_s
