"""The ids of plain prompts, kept per session, for texts that are continued later.

A kept text ends at a border (see `borders`). So a prompt's ids are the same with and without it,
and only time is saved. This module compares texts; it knows no tokenizer.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PROMPTS_PER_SESSION = 8  # undo steps of a text that grows; older ones are encoded anew


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """A text and the ids of all but its last character; the border is before that character."""

    text: str
    token_ids: array[int]


class PlainPromptLog:
    """The newest prompts of each session, within limits of sessions and of characters in all.

    Safe to call from several threads.
    """

    def __init__(self, *, max_sessions: int = 4_096, max_characters: int = 16_000_000) -> None:
        self._max_sessions, self._max_characters = max_sessions, max_characters
        self._sessions: OrderedDict[str, list[PlainPrompt]] = OrderedDict()
        self._num_characters = 0
        self._lock = threading.Lock()

    def record(self, session_id: str, text: str, token_ids: Sequence[int]) -> None:
        """Keep the ids that the text was read as, up to its last character."""
        with self._lock:
            prompts = self._sessions.setdefault(session_id, [])
            self._sessions.move_to_end(session_id)
            if any(prompt.text == text for prompt in prompts):
                return
            prompts.append(PlainPrompt(text, array("I", token_ids)))
            self._num_characters += len(text)
            while len(prompts) > MAX_PROMPTS_PER_SESSION:
                self._num_characters -= len(prompts.pop(0).text)
            while (
                self._num_characters > self._max_characters
                or len(self._sessions) > self._max_sessions
            ):
                self._drop(next(iter(self._sessions)))

    def longest_prefix(self, session_id: str, text: str) -> PlainPrompt | None:
        """The session's longest prompt that `text` begins with, or None."""
        with self._lock:
            prompts = self._sessions.get(session_id, [])
            known = [prompt for prompt in prompts if text.startswith(prompt.text)]
            return max(known, key=lambda prompt: len(prompt.text), default=None)

    def forget(self, session_id: str) -> bool:
        """Drop the session's prompts; whether there were any."""
        with self._lock:
            is_known = session_id in self._sessions
            self._drop(session_id)
            return is_known

    def _drop(self, session_id: str) -> None:
        for prompt in self._sessions.pop(session_id, []):
            self._num_characters -= len(prompt.text)
