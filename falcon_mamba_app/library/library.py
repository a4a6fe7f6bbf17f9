"""The library: every conversation of every owner, as one object for the page and the API.

Each call names its owner, and finds nothing of another's: what is not theirs is NotFound, as if it
had never been. Every call may raise LibraryUnavailable, a sentence; its caller then goes on in
memory. Blocking work runs on the threads of `database`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection

import falcon_mamba_app.library.changes as changed
import falcon_mamba_app.library.conversations as conversations
import falcon_mamba_app.library.messages as messages
import falcon_mamba_app.library.removal as removal
import falcon_mamba_app.library.replies as replies
import falcon_mamba_app.library.search as search
from falcon_mamba_app.errors import LibraryUnavailable
from falcon_mamba_app.library.claims import Claims
from falcon_mamba_app.library.database import Database, Place
from falcon_mamba_app.library.rows import own_conversation
from falcon_mamba_app.library.spending import Spending
from falcon_mamba_app.library.tree import (
    BranchRecord,
    Changes,
    ConversationRecord,
    Deleted,
    Hit,
    MessageRecord,
    Page,
    ReplyEnd,
    Role,
    Tree,
    new_id,
)
from falcon_mamba_app.library.writers import writer_of

P = ParamSpec("P")
T = TypeVar("T")
Found = TypeVar("Found", Tree, tuple[MessageRecord, ...])

DAY_S = 86_400.0


class Library:
    def __init__(self, database: Database, place: Place) -> None:
        self._database, self.place = database, place
        self.claims, self.spending = Claims(database), Spending(database)

    @classmethod
    async def open(cls, place: Place | None = None) -> Self:
        """The library at a place, its schema up to date; in memory without one.

        Replies whose process ended in the middle are closed with the words that they had. Raises
        LibraryUnavailable.
        """
        place = place or Place()
        library = cls(await asyncio.to_thread(Database.open, place), place)
        await library.close_broken_off()
        return library

    async def close(self) -> None:
        await asyncio.to_thread(self._database.close)

    async def create(
        self,
        owner: str,
        *,
        title: str = "",
        system_prompt: str = "",
        settings: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        folder: str = "",
        id: str | None = None,
    ) -> ConversationRecord:
        now_s = time.time()
        record = ConversationRecord(
            id=id or new_id("conv"),
            owner=owner,
            title=title,
            system_prompt=system_prompt,
            settings=settings or {},
            extra=extra or {},
            folder=folder,
            created_s=now_s,
            updated_s=now_s,
        )
        return await self._database.write(conversations.create, record)

    async def get(self, owner: str, conversation_id: str) -> ConversationRecord:
        return await self._database.read(own_conversation, owner, conversation_id)

    async def has(self, conversation_id: str) -> bool:
        """Whether the id is taken, by any owner."""
        return await self._database.read(conversations.has, conversation_id)

    async def list(
        self,
        owner: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        is_archived: bool | None = False,
        is_pinned: bool | None = None,
        folder: str | None = None,
    ) -> Page:
        """A page of the owner's conversations: the pinned ones, then those changed last.

        None for a property does not look at it.
        """
        return await self._database.read(
            conversations.listed,
            owner,
            limit=limit,
            cursor=cursor,
            is_archived=is_archived,
            is_pinned=is_pinned,
            folder=folder,
        )

    async def context_tokens(self, owner: str, ids: Sequence[str]) -> dict[str, int]:
        """What each of these conversations has read and written up to its head, where known."""
        return await self._database.read(conversations.context_tokens, owner, ids)

    async def search(self, owner: str, words: str, *, limit: int = 20) -> tuple[Hit, ...]:
        """Conversations with all these words in the title or in one message, on any branch."""
        return await self._database.read(search.search, owner, words, limit)

    async def change(
        self,
        owner: str,
        conversation_id: str,
        *,
        expected_version: int | None = None,
        **changes: Any,
    ) -> ConversationRecord:
        """Change title, system_prompt, settings, extra, folder, is_pinned or is_archived. Raises
        Conflict if the conversation has another version than the expected one.
        """
        return await self._database.write(
            conversations.change, owner, conversation_id, changes, expected_version
        )

    async def tree(self, owner: str, conversation_id: str) -> Tree:
        """The conversation with all messages and branches."""
        return await self._settled(messages.tree, owner, conversation_id)

    async def path(
        self, owner: str, conversation_id: str, message_id: str | None = None
    ) -> tuple[MessageRecord, ...]:
        """From the first message to this one; to the head without one."""
        return await self._settled(messages.path, owner, conversation_id, message_id)

    async def message(self, owner: str, message_id: str) -> MessageRecord:
        (found,) = await self._settled(messages.single, owner, message_id)
        return found

    async def append(
        self,
        owner: str,
        conversation_id: str,
        *,
        parent_id: str | None,
        role: Role,
        text: str,
        id: str | None = None,
        expected_version: int | None = None,
        **known: Any,
    ) -> MessageRecord:
        """Add a whole message below another, or as a first one; it becomes the head.

        An edit and another try are messages below the same parent. `known` are other fields of
        MessageRecord. Raises NotFound, and Conflict for another version than the expected one.
        """
        record = MessageRecord(
            id=id or new_id("msg"),
            conversation_id=conversation_id,
            parent_id=parent_id,
            role=role,
            text=text,
            created_s=time.time(),
            **known,
        )
        return await self._database.write_durably(messages.append, owner, record, expected_version)

    async def set_head(
        self,
        owner: str,
        conversation_id: str,
        message_id: str | None,
        *,
        expected_version: int | None = None,
    ) -> ConversationRecord:
        """Go on from another message; with None from the beginning."""
        return await self._database.write(
            conversations.set_head, owner, conversation_id, message_id, expected_version
        )

    async def remove(
        self, owner: str, conversation_id: str, message_ids: Sequence[str]
    ) -> ConversationRecord:
        """Delete single messages; what followed one now follows its parent. The conversation's
        states have read what is gone: let them go too.
        """
        work = removal.remove_alone
        return await self._wiped(work, owner, conversation_id, message_ids)

    async def remove_branch(self, owner: str, message_id: str) -> ConversationRecord:
        """Delete a message with all that follows it."""
        return await self._wiped(removal.remove_branch, owner, message_id)

    async def begin_reply(
        self,
        owner: str,
        conversation_id: str,
        *,
        parent_id: str | None,
        model: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        id: str | None = None,
        expected_version: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> MessageRecord:
        """An empty reply, which becomes the head. Its `generation` is the key to the next three."""
        record = MessageRecord(
            id=id or new_id("msg"),
            conversation_id=conversation_id,
            parent_id=parent_id,
            role="assistant",
            text="",
            created_s=time.time(),
            model=model,
            sampling=sampling,
            extra=extra or {},
        )
        return await self._database.write(
            replies.begin, owner, record, self._database.this, expected_version
        )

    async def extend_reply(self, owner: str, generation: str, seq: int, text: str) -> None:
        """Add piece number `seq` of the reply, from 0. Raises Conflict once the reply is over."""
        await self._database.write(replies.extend, owner, generation, seq, text)

    async def finish_reply(self, owner: str, generation: str, end: ReplyEnd) -> MessageRecord:
        """The reply is over, however it ended; it has reached the disk when this returns."""
        return await self._database.write_durably(replies.finish, owner, generation, end)

    async def close_broken_off(self) -> int:
        """End the replies whose processes have gone, with the words they had; returns how many."""
        return await self._database.write(replies.close_broken_off, self._database.this)

    async def name_branch(
        self, owner: str, conversation_id: str, name: str, message_id: str
    ) -> BranchRecord:
        """Name a message, to come back to it; a name that is taken moves."""
        return await self._database.write(
            conversations.name_branch, owner, conversation_id, name, message_id
        )

    async def unname_branch(self, owner: str, conversation_id: str, name: str) -> None:
        await self._database.write(conversations.unname_branch, owner, conversation_id, name)

    async def fork(
        self, owner: str, conversation_id: str, message_id: str, *, title: str | None = None
    ) -> ConversationRecord:
        """A new conversation with a copy of the path to the message."""
        return await self._database.write(messages.fork, owner, conversation_id, message_id, title)

    async def apply(self, owner: str, changes: Changes) -> ConversationRecord:
        """Bring a conversation to what its holder has made of it; a new one is made."""
        now = await self._database.write_durably(changed.apply, owner, changes)
        if changes.removed:
            await self._database.wipe()
        return now

    async def adopt(self, owner: str, *trees: Tree) -> tuple[ConversationRecord, ...]:
        """Keep trees from elsewhere as new conversations of the owner, all or none; new ids."""
        return await self._database.write_durably(messages.adopt_all, owner, trees)

    async def delete(self, owner: str, conversation_id: str) -> Deleted:
        """Delete a conversation and all of it; nothing of its words stays in the file."""
        return await self._wiped(removal.delete_conversation, owner, conversation_id)

    async def delete_everything(self, owner: str) -> Deleted:
        return await self._wiped(removal.delete_owner, owner)

    async def delete_older(self, days: float) -> Deleted:
        """Delete what nobody has used for so many days, of all owners, but for what is pinned."""
        return await self._wiped(removal.delete_older, time.time() - days * DAY_S)

    async def _wiped(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delete; then nothing of the words stays in the file."""
        left = await self._database.write_durably(work, *args, **kwargs)
        if left != Deleted():
            await self._database.wipe()
        return left

    async def _settled(
        self, work: Callable[Concatenate[Connection, P], Found], *args: P.args, **kwargs: P.kwargs
    ) -> Found:
        """Read; replies that seem to be written by another process may have been broken off."""
        found = await self._database.read(work, *args, **kwargs)
        records = found.messages if isinstance(found, Tree) else found
        if not any(self._is_of_another(record) for record in records):
            return found
        with suppress(LibraryUnavailable):
            await self.close_broken_off()
        return await self._database.read(work, *args, **kwargs)

    def _is_of_another(self, record: MessageRecord) -> bool:
        name = self._database.this.name
        return record.generation is not None and writer_of(record.generation) != name
