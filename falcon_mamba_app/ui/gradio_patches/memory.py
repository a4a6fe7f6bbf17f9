"""Bounds the memory that Gradio keeps per page, and frees it when the page has gone.

Gradio holds 0.3 MB for every page that was ever opened, for up to 10,000 pages, and every update
that a page has not read yet. Both are private parts of Gradio; tests/ui/test_memory_patch.py fails
if a new version has moved them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gradio.blocks import Blocks
from gradio.utils import LRUCache

# The most pages kept whose browser never opened a heartbeat, so that their leaving is not noticed.
MAX_PAGES = 1_000
# Events of a page that has just gone are still being closed.
DELAY_S = 5.0
# Three seconds of updates: a page that reads slower than that skips some.
MAX_UNREAD_UPDATES = 36


# Pages whose messages are kept. Each takes some kB until it reads them, or is pushed out.
MAX_READERS = 10_000


class _RecentlyUsed(LRUCache[str, Any]):
    """Evicts the page that has neither written nor read for longest. Gradio's own cache evicts the
    oldest page, whose reply then breaks off: a few thousand pages of strangers were enough.
    """

    def __getitem__(self, page: str) -> Any:
        messages = super().__getitem__(page)
        self.move_to_end(page)
        return messages


def keep_readers(blocks: Blocks) -> None:
    """Make a page that reads its reply count as used; a reader polls at least every 10 s. Call
    this after the queue is made.
    """
    blocks._queue.pending_messages_per_session = _RecentlyUsed(MAX_READERS)


class PageMemory:
    """The memory of one Blocks, which need not be served yet."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        blocks.state_session_capacity = MAX_PAGES

    def forget_soon(self, page: str) -> None:
        """Give back what is kept for a page that has gone, once nothing runs for it."""
        if not self._is_known(page):
            return
        asyncio.get_running_loop().call_later(DELAY_S, self._forget, page)

    def is_behind(self, page: str) -> bool:
        """Whether the page has so many updates to read that no more should be added."""
        unread = self._blocks._queue.pending_messages_per_session.get(page)
        return unread is not None and unread.qsize() >= MAX_UNREAD_UPDATES

    def _is_known(self, page: str) -> bool:
        """Whether it did anything at all."""
        queue = self._blocks._queue
        known = (queue.pending_messages_per_session, queue.pending_event_ids_session)
        return page in self._blocks.state_holder.session_data or any(page in kept for kept in known)

    def _forget(self, page: str) -> None:
        queue, holder = self._blocks._queue, self._blocks.state_holder
        if any(event.session_hash == page for event in queue.event_ids_to_events.values()):
            self.forget_soon(page)  # its connection broke, and a new one continues
            return
        holder.session_data.pop(page, None)
        holder.time_last_used.pop(page, None)
        queue.pending_messages_per_session.pop(page, None)
        queue.pending_event_ids_session.pop(page, None)
