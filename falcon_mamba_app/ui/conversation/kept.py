"""The kept conversations of the page's visitors: listed, opened, written, deleted.

A session whose visitor is an owner is a conversation of the library under the same id. `shelf`
writes what the session has become, and `recording` a reply while it is written.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from falcon_mamba_app.errors import FalconMambaError, LibraryUnavailable, NotFound
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.library import ConversationRecord, Deleted, Hit, Library, Page
from falcon_mamba_app.library.exchange.moving import BroughtIn, bring_in
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.shelf import Shelf, opened, opened_text
from falcon_mamba_app.ui.conversation.tree import Tree

logger = logging.getLogger(__name__)


class Kept:
    """The library as the page uses it. Every method that names an owner finds only theirs."""

    def __init__(self, keeping: Keeping, forget: Callable[[str], object]) -> None:
        """`forget` drops the states of a session that is deleted."""
        self._keeping, self._forget = keeping, forget
        self.trouble: str | None = None  # why the last write failed, as a sentence

    @property
    def notice(self) -> str:
        """Where conversations are kept, or why they are not: a sentence for the page."""
        return self._keeping.notice if self.trouble is None else self.trouble

    def owner_of(self, request: Asking) -> str | None:
        """Whose conversations the request is about; None where nothing is kept."""
        return self._keeping.owner_of(request)

    # What the sidebar shows

    async def list(
        self,
        owner: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        is_archived: bool = False,
        folder: str | None = None,
    ) -> Page:
        return await self._library.list(
            owner, limit=limit, cursor=cursor, is_archived=is_archived, folder=folder
        )

    async def record(self, owner: str, conversation_id: str) -> ConversationRecord:
        return await self._library.get(owner, conversation_id)

    async def search(self, owner: str, words: str, *, limit: int = 20) -> tuple[Hit, ...]:
        return await self._library.search(owner, words, limit=limit)

    async def context_tokens(self, owner: str, ids: Sequence[str]) -> dict[str, int]:
        return await self._library.context_tokens(owner, ids)

    async def rename(self, owner: str, conversation_id: str, title: str) -> ConversationRecord:
        return await self._library.change(owner, conversation_id, title=title)

    async def pin(self, owner: str, conversation_id: str, is_pinned: bool) -> ConversationRecord:
        return await self._library.change(owner, conversation_id, is_pinned=is_pinned)

    async def archive(
        self, owner: str, conversation_id: str, is_archived: bool
    ) -> ConversationRecord:
        return await self._library.change(owner, conversation_id, is_archived=is_archived)

    async def move(self, owner: str, conversation_id: str, folder: str) -> ConversationRecord:
        return await self._library.change(owner, conversation_id, folder=folder)

    async def fork(self, owner: str, conversation_id: str, message_id: str) -> ConversationRecord:
        """A new conversation that begins with the path to the message."""
        return await self._library.fork(owner, conversation_id, message_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Delete a conversation, its words, index and states."""
        self._forget_all(await self._library.delete(owner, conversation_id))

    async def delete_everything(self, owner: str) -> int:
        """Delete all of the owner's conversations; how many they were."""
        gone = await self._library.delete_everything(owner)
        self._forget_all(gone)
        return len(gone)

    # Between a session and the library

    def shelf(self, owner: str) -> Shelf:
        """For a new conversation of the owner."""
        return Shelf(self._library, owner, self._tell)

    async def open(self, owner: str, conversation_id: str) -> tuple[Tree, Document, Shelf] | None:
        """The conversation as a session holds it; None if the owner has none of this id, or the
        library fails.
        """
        try:
            kept = await self._library.tree(owner, conversation_id)
        except NotFound:
            return None
        except LibraryUnavailable as error:
            self._tell(error)
            return None
        shelf = self.shelf(owner)
        shelf.hold(kept)
        return opened(kept), opened_text(kept), shelf

    async def bring_in(
        self, owner: str, service: GenerationService, data: bytes
    ) -> AsyncGenerator[BroughtIn, None]:
        """Keep all conversations of a file, with the states in it; tells how far it is."""
        async with aclosing(bring_in(self._library, owner, service, data)) as steps:
            async for step in steps:
                yield step

    async def has_gone_on(self, shelf: Shelf, conversation_id: str) -> bool:
        """Whether the library has what the shelf's session does not know, and misses nothing."""
        if shelf.has_failed or shelf.writing is not None:
            return False
        try:
            kept = await self._library.get(shelf.owner, conversation_id)
        except (NotFound, LibraryUnavailable):
            return False
        return kept.head_id != shelf.head_id

    async def has(self, conversation_id: str) -> bool:
        """Whether the library has it, for whomever."""
        if self._keeping.library is None:
            return False
        try:
            return await self._keeping.library.has(conversation_id)
        except LibraryUnavailable as error:
            self._tell(error)
            return True  # nothing is handed out that might be somebody else's

    @property
    def _library(self) -> Library:
        if self._keeping.library is None:
            raise LibraryUnavailable("conversations are not kept here")
        return self._keeping.library

    def _forget_all(self, gone: Deleted) -> None:
        for conversation_id in gone.conversation_ids:
            self._forget(conversation_id)

    def _tell(self, error: FalconMambaError | None) -> None:
        """Once for each kind of trouble; the log gets no words of a visitor."""
        trouble = None if error is None else str(error)
        if trouble is not None and trouble != self.trouble:
            logger.warning("a conversation could not be kept: %s", trouble)
        self.trouble = trouble
