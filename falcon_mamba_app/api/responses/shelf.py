"""Where responses are kept: the owner's library, and in front of it the newest ones in memory.

The newest ones keep all ids that were read and written up to their end. So a response goes on
without its history being read from the database, rendered or tokenised: that is the whole point.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.api.responses.items import Item
from falcon_mamba_app.api.responses.record import Json, Record, Status, pieces_of
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.library import Library, MessageRecord, ReplyEnd
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.visitors import visitor_in

MAX_RECENT_BYTES = 256 * 2**20  # of ids and texts: 600 conversations of 100,000 tokens
MAX_BYTES_IN_MEMORY = 256 * 2**20  # of conversations that no disk keeps
INTERRUPTED: Json = {"code": "server_error", "message": "the server stopped in mid-reply"}
STATUS: dict[str, Status] = {
    "complete": "completed",
    "writing": "in_progress",
    "stopped": "cancelled",
    "failed": "failed",
    "interrupted": "failed",
}
NAMES = ("item_id", "input_ids", "previous_id")  # of other messages, in what is kept of a response
STATUS_KEPT = {"completed": "complete", "incomplete": "complete", "cancelled": "stopped"}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose responses, and on which shelf."""

    name: str
    shelf: Shelf


class Shelf:
    """One library and its newest responses. `max_bytes` limits one that is only in memory."""

    def __init__(self, library: Library, *, max_bytes: int | None = None) -> None:
        self.library = library
        self._max_bytes = max_bytes
        self._recent: OrderedDict[tuple[str, str], Record] = OrderedDict()
        self._num_bytes = 0
        # Of conversations, the longest unchanged first.
        self._sizes: OrderedDict[tuple[str, str], int] = OrderedDict()

    @property
    def outlives_the_process(self) -> bool:
        return self._max_bytes is None

    async def get(self, owner: str, response_id: str) -> Record:
        """The response as it is kept. Raises NotFound."""
        message = await self.library.message(owner, response_id)
        if message.role != "assistant":
            raise NotFound(f"{response_id} is no response")
        known = self._recent.get((owner, response_id))
        if known is not None and known.is_over:
            self._recent.move_to_end((owner, response_id))
            return known
        return record_of(message)

    def remember(self, owner: str, record: Record) -> None:
        """Keep a finished response at hand; the longest unused ones go."""
        self.drop(owner, record.id)
        self._recent[owner, record.id] = record
        self._num_bytes += _size(record)
        while self._num_bytes > MAX_RECENT_BYTES:
            self.drop(*next(iter(self._recent)))

    def drop(self, owner: str, response_id: str) -> None:
        record = self._recent.pop((owner, response_id), None)
        if record is not None:
            self._num_bytes -= _size(record)

    async def keep_end(self, owner: str, generation: str, end: ReplyEnd, record: Record) -> None:
        """Keep the end of a response. Raises LibraryUnavailable, Conflict."""
        await self.library.finish_reply(owner, generation, end)
        self.remember(owner, record)
        if record.conversation_id is not None:
            await self.grow(owner, record.conversation_id, _size(record))

    def drop_conversation(self, owner: str, conversation_id: str) -> None:
        """Its messages have changed, so its responses' ids no longer stand for them."""
        for other, record in list(self._recent.items()):
            if other[0] == owner and record.conversation_id == conversation_id:
                self.drop(*other)

    async def remove(self, owner: str, conversation_id: str, message_ids: list[str]) -> None:
        """Delete messages; with the last one the conversation goes. Raises NotFound."""
        self.drop_conversation(owner, conversation_id)
        left = await self.library.remove(owner, conversation_id, message_ids)
        if not left.num_messages:
            await self.library.delete(owner, conversation_id)

    async def grow(self, owner: str, conversation_id: str, num_bytes: int) -> None:
        """Count what a conversation in memory takes; the longest unchanged ones make room."""
        if self._max_bytes is None:
            return
        key = owner, conversation_id
        self._sizes[key] = self._sizes.pop(key, 0) + num_bytes
        while sum(self._sizes.values()) > self._max_bytes and len(self._sizes) > 1:
            (oldest_owner, oldest), _ = self._sizes.popitem(last=False)
            self.drop_conversation(oldest_owner, oldest)
            with contextlib.suppress(NotFound):
                await self.library.delete(oldest_owner, oldest)


class Shelves:
    """The shelf of each caller: the library for those who have a place there, else memory."""

    def __init__(self, keeping: Keeping | None) -> None:
        library = keeping.library if keeping is not None else None
        self._keeping, self._kept = keeping, Shelf(library) if library is not None else None
        self._in_memory: Shelf | None = None
        self._opening = asyncio.Lock()

    async def of(self, request: Asking) -> Owner:
        if self._keeping is not None and self._kept is not None:
            owner = self._keeping.owner_of(request)
            if owner is not None:
                return Owner(owner, self._kept)
        async with self._opening:
            if self._in_memory is None:
                library = await Library.open()
                self._in_memory = Shelf(library, max_bytes=MAX_BYTES_IN_MEMORY)
        return Owner(visitor_in(request.state).owner, self._in_memory)


def record_of(message: MessageRecord) -> Record:
    """A response from the library's reply, whoever asked for it. A copy of one has other ids than
    it was kept with.
    """
    kept: Json = dict(message.extra.get("response") or {})
    if not message.id.startswith("resp_"):
        kept = {name: value for name, value in kept.items() if name not in NAMES}
    is_over = message.status in ("complete", "stopped", "failed")
    status: Status | None = kept.get("status") if is_over else None
    if status is None:
        status = STATUS[message.status]
        if message.finish_reason == "length" and status == "completed":
            status = "incomplete"
    error = kept.get("error") or (INTERRUPTED if message.status == "interrupted" else None)
    sampling: Any = message.sampling or {}
    return Record(
        id=message.id,
        item_id=kept.get("item_id") or item_id_of(message.id),
        model=message.model or "",
        asked={**sampling, "store": True, **(kept.get("asked") or {})},
        created_s=kept.get("created_s") or message.created_s,
        conversation_id=message.conversation_id,
        previous_id=kept.get("previous_id"),
        input_ids=kept.get("input_ids") or [],
        status=status,
        pieces=pieces_of(message.text, kept),
        usage=kept.get("usage"),
        error=error,
        reason="max_output_tokens" if status == "incomplete" else None,
        completed_s=kept.get("completed_s"),
    )


def reply_end_of(record: Record, finish_reason: str | None, num_prompt_tokens: int) -> ReplyEnd:
    """What the library keeps of a response that is over."""
    ids = record.packed_ids
    usage = record.usage or {}
    return ReplyEnd(
        status=STATUS_KEPT.get(record.status, "failed"),  # type: ignore[arg-type]
        text=record.text,
        token_ids=ids[4 * num_prompt_tokens :] if ids is not None else None,
        num_tokens=usage.get("output_tokens"),
        context_tokens=usage.get("total_tokens"),
        finish_reason=finish_reason,
        extra=record.kept(),
    )


def messages_of(path: tuple[MessageRecord, ...]) -> list[Message]:
    """The messages of a path as a prompt has them, replies with their own ids."""
    return [Message(one.role, one.text, one.token_ids or b"") for one in path]


def item_of(message: MessageRecord) -> tuple[str, Item]:
    """The item that a message is, with its id."""
    role = "developer" if message.extra.get("role") == "developer" else message.role
    is_response = message.role == "assistant" and message.id.startswith("resp_")
    item_id = item_id_of(message.id) if is_response else message.id
    return item_id, Item(role, _parts(message))


def _parts(message: MessageRecord) -> tuple[str, ...]:
    """The text's parts as they came; the conversation may have come from a file."""
    parts = message.extra.get("parts")
    is_list = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    return (
        tuple(parts) if is_list and parts and "\n".join(parts) == message.text else (message.text,)
    )


def item_id_of(response_id: str) -> str:
    return "msg_" + response_id.partition("_")[2]


def _size(record: Record) -> int:
    return len(record.packed_ids or b"") + 4 * sum(len(p.text) for p in record.pieces) + 2_000
