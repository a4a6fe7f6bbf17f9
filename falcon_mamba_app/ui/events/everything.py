"""The page's "Delete everything": all that the server has of who asks, here and behind the API.

Somebody without a place in the library has this page alone: others may come from the same address.
"""

from __future__ import annotations

import gradio as gr

from falcon_mamba_app.belongings import Belongings
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.books import BookEvents
from falcon_mamba_app.ui.events.chat_and_document import page_of


class Everything:
    """Joins the rooms that it empties: open pages come first, so that nothing is written anew."""

    def __init__(
        self, sessions: Sessions, books: BookEvents, belongings: Belongings | None = None
    ) -> None:
        """Without `belongings` the page stands alone, and empties its own rooms."""
        self._sessions, self._books = sessions, books
        self._belongings = belongings or Belongings()
        if belongings is None:
            self._belongings.add("books", books.remove_all)
            self._belongings.add("conversations", self._delete_conversations)
        self._belongings.add("open_pages", self._let_go, is_first=True)

    async def delete(self, request: gr.Request) -> None:
        """Raises FalconMambaError where something may be left."""
        if self._sessions.kept.owner_of(request) is not None:
            await self._belongings.delete(request)
            return
        await self._books.remove_all(request)
        self._sessions.free_of(page_of(request))

    async def _delete_conversations(self, request: Asking) -> int:
        kept = self._sessions.kept
        owner = kept.owner_of(request)
        return 0 if owner is None else await kept.delete_everything(owner)

    async def _let_go(self, request: Asking) -> int:
        return self._sessions.let_go(self._sessions.kept.owner_of(request))
