"""One response as it is written: by one task, for any number of readers, into the library.

A reader who asked for it waits for its end; when that reader leaves, the reply ends too, unless it
is written in the background. Words reach the library about once a second, and all of them at the
end: a response is told to be over only when it is kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from falcon_mamba_app.api.logprobs import chat_logprob
from falcon_mamba_app.api.responses.events import event
from falcon_mamba_app.api.responses.items import Item
from falcon_mamba_app.api.responses.record import Json, Piece, Record
from falcon_mamba_app.api.responses.shelf import Owner, reply_end_of
from falcon_mamba_app.errors import (
    FalconMambaError,
    InvalidRequest,
    Overloaded,
    TooManyRequests,
)
from falcon_mamba_app.http.errors import presentable
from falcon_mamba_app.library import new_id
from falcon_mamba_app.protocol import Accepted, Finished, GenerationEvent, TextDelta

logger = logging.getLogger(__name__)

SAVED_EVERY_S = 1.0
QUIET_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a response is kept: below a message of a conversation, or in a new one."""

    owner: Owner
    conversation_id: str | None
    parent_id: str | None
    items: list[Item]
    moves_head: bool  # back to the parent, if the response fails


class Writing:
    """`begun` and `ended` wait for it, `cancel` ends it; `record` may be read at any time."""

    def __init__(
        self,
        record: Record,
        events: AsyncGenerator[GenerationEvent, None],
        place: Place | None,
        on_over: Callable[[Writing], Awaitable[None]],
    ) -> None:
        """Without a place the response is not kept. `on_over` comes when all is done."""
        self.record, self._events, self._place, self._on_over = record, events, place, on_over
        self.failure: FalconMambaError | None = None
        self._has_begun = False
        self._num_prompt_tokens = 0
        self._finish_reason: str | None = None
        self._changed = asyncio.Event()
        self._saving: asyncio.Task[str | None] | None = None
        self._num_saved, self._num_saves, self._saved_s = 0, 0, 0.0
        self._task = asyncio.create_task(self._write())

    async def begun(self) -> None:
        """Return once the service has taken the request. Raises why it did not."""
        while not self._has_begun and not self._task.done():
            await self._changed.wait()
        if not self._has_begun and self.failure is not None:
            raise self.failure

    async def ended(self) -> Record:
        """The response when it is over, and kept."""
        await asyncio.shield(self._task)
        return self.record

    async def cancel(self) -> Record:
        """End the response now, with the words that it has; nothing happens to one that is over."""
        if not self.record.is_over:
            self._task.cancel()
        await asyncio.wait([self._task])
        return self.record

    async def follow(self, after: int = -1) -> AsyncGenerator[Json | None, None]:
        """The events after number `after`, up to the last one; None after a long silence."""
        number = after + 1
        while True:
            is_done = self._task.done()
            while (told := event(self.record, number)) is not None and (
                not self.record.is_over or is_done
            ):
                yield told
                number += 1
            if is_done:
                return
            try:
                await asyncio.wait_for(self._changed.wait(), QUIET_S)
            except TimeoutError:
                yield None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _write(self) -> None:
        try:
            try:
                async with aclosing(self._events) as events:
                    async for one in events:
                        await self._take(one)
            except asyncio.CancelledError:
                self.record.status = "cancelled"
            except Exception as raised:
                self.failure = presentable(raised)
                self.record.status, self.record.error = "failed", _error(self.failure)
            self.record.completed_s = time.time() if self.record.status == "completed" else None
            await self._keep()
        finally:
            await self._on_over(self)
            asyncio.get_running_loop().call_soon(self._tell)

    async def _take(self, one: GenerationEvent) -> None:
        record = self.record
        if not self._has_begun:
            self._has_begun = True
            if not record.is_background:
                record.status = "in_progress"
            if self._place is not None:
                self._saving = asyncio.create_task(self._begin_keeping(self._place))
        match one:
            case Accepted():
                record.status = "in_progress"
                self._num_prompt_tokens = one.prompt_tokens or 0
                record.usage = _usage(one.prompt_tokens, one.reused_tokens, 0)
            case TextDelta(text=text):
                tokens = [chat_logprob(token, with_top=True) for token in one.logprobs]
                record.pieces.append(Piece(text, tokens))
                record.usage = _usage_after(record.usage, one.completion_tokens)
                self._save_soon()
            case Finished():
                record.usage = _usage(one.prompt_tokens, one.reused_tokens, one.completion_tokens)
                record.packed_ids, self._finish_reason = one.packed_ids, one.reason
                record.reason = "max_output_tokens" if one.reason == "length" else None
                record.status = "incomplete" if record.reason else "completed"
        if not record.is_over:
            self._tell()

    async def _begin_keeping(self, place: Place) -> str | None:
        """Put what was asked into the library; returns the reply's generation, None on failure."""
        library, name, record = place.owner.shelf.library, place.owner.name, self.record
        try:
            conversation_id, parent_id = place.conversation_id, place.parent_id
            if conversation_id is None:
                created = await library.create(
                    name,
                    title=title_of(place.items),
                    system_prompt=record.asked.get("instructions") or "",
                    folder="API",
                    extra={"is_responses": True},
                    id=record.conversation_id,
                )
                conversation_id = created.id
            for item, item_id in zip(place.items, record.input_ids, strict=True):
                await library.append(
                    name,
                    conversation_id,
                    parent_id=parent_id,
                    role=item.message.role,
                    text=item.text,
                    id=item_id,
                    extra=item.extra,
                )
                parent_id = item_id
            begun = await library.begin_reply(
                name,
                conversation_id,
                parent_id=parent_id,
                model=record.model,
                id=record.id,
                extra=record.kept(),
            )
        except FalconMambaError as error:
            logger.warning("a response is not kept: %s", error)
            return None
        return begun.generation

    def _save_soon(self) -> None:
        """Extend the kept reply, unless that was done within the last second."""
        now_s = time.monotonic()
        if self._saving is None or not self._saving.done() or now_s < self._saved_s + SAVED_EVERY_S:
            return
        self._saved_s = now_s
        self._saving = asyncio.create_task(self._extend(self._saving.result()))

    async def _extend(self, generation: str | None) -> str | None:
        if generation is None or self._place is None:
            return None
        text = self.record.text[self._num_saved :]
        self._num_saved += len(text)
        seq, self._num_saves = self._num_saves, self._num_saves + 1
        owner = self._place.owner
        try:
            await owner.shelf.library.extend_reply(owner.name, generation, seq, text)
        except FalconMambaError as error:
            logger.warning("the words of a response are not kept yet: %s", error)
        return generation

    async def _keep(self) -> None:
        if self._saving is None or self._place is None:
            return
        place, record = self._place, self.record
        generation = await self._saving
        if generation is None:
            record.conversation_id = None
            return
        end = reply_end_of(record, self._finish_reason, self._num_prompt_tokens)
        library, name = place.owner.shelf.library, place.owner.name
        try:
            await place.owner.shelf.keep_end(name, generation, end, record)
            if record.status == "failed" and place.moves_head and record.conversation_id:
                await library.set_head(name, record.conversation_id, place.parent_id)
        except FalconMambaError as error:
            logger.warning("the end of a response is not kept: %s", error)


def new_record(
    asked: Json,
    *,
    model: str,
    place: Place | None,
    previous_id: str | None,
    copy: str | None = None,
) -> Record:
    """A response that nobody writes yet, with all of its ids; `copy` is the server's name."""
    response_id = new_id("resp", copy)
    conversation_id = None
    if place is not None:
        conversation_id = place.conversation_id or new_id("conv", copy)
    items = place.items if place is not None else []
    return Record(
        id=response_id,
        item_id="msg_" + response_id.partition("_")[2],
        model=model,
        asked=asked,
        created_s=time.time(),
        conversation_id=conversation_id,
        previous_id=previous_id,
        input_ids=[new_id("msg") for _ in items],
    )


def title_of(items: list[Item]) -> str:
    """The beginning of what was asked first, on one line."""
    words = " ".join(items[0].text[:200].split())
    return words if len(words) <= 60 else words[:59] + "…"


def _usage(prompt_tokens: int | None, reused_tokens: int | None, num_written: int) -> Json | None:
    if prompt_tokens is None:
        return None
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": reused_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": num_written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + num_written,
    }


def _usage_after(usage: Json | None, num_written: int) -> Json | None:
    if usage is None:
        return None
    total = usage["input_tokens"] + num_written
    return {**usage, "output_tokens": num_written, "total_tokens": total}


def _error(error: FalconMambaError) -> Json:
    """OpenAI's error of a response that failed."""
    code = "server_error"
    if isinstance(error, InvalidRequest):
        code = "invalid_prompt"
    elif isinstance(error, TooManyRequests | Overloaded):
        code = "rate_limit_exceeded"
    return {"code": code, "message": str(error)}
