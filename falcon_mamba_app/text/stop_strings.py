"""Stop strings in a text that arrives in pieces.

Text that could be the beginning of a stop string is held back until that is decided, so shown text
is never removed. It does not know tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


class _Matcher:
    """Knuth-Morris-Pratt over a stream: constant work per character, however long the string."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._fallback = _failure_table(wanted)
        self.matched = 0  # length of the prefix of `wanted` that ends the text so far

    def advance(self, character: str) -> bool:
        """Whether the string is complete with this character. Do not call it again after that."""
        while self.matched and self._wanted[self.matched] != character:
            self.matched = self._fallback[self.matched - 1]
        if self._wanted[self.matched] == character:
            self.matched += 1
        return self.matched == len(self._wanted)


def _failure_table(wanted: str) -> list[int]:
    """For each prefix, the length of its longest proper suffix that is a prefix too."""
    table, length = [0] * len(wanted), 0
    for place in range(1, len(wanted)):
        while length and wanted[place] != wanted[length]:
            length = table[length - 1]
        length += wanted[place] == wanted[length]
        table[place] = length
    return table


class StopStrings:
    """Passes text through up to the first stop string, whichever begins earliest."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._matchers = [_Matcher(wanted) for wanted in stop]
        self._held = ""
        self._num_read = self._num_released = 0
        self._stop_start: int | None = None  # of the earliest complete stop string
        self.is_stopped = False

    def feed(self, text: str) -> str:
        """The text that may be shown now. Nothing more comes after `is_stopped`."""
        if self.is_stopped:
            return ""
        if not self._matchers:
            return text
        self._held += text
        for character in text:
            self._num_read += 1
            self._advance(character)
            if self._stop_start is not None and self._undecided_start() >= self._stop_start:
                return self._cut()
        return self._release(self._undecided_start())

    def flush(self) -> str:
        """The remaining text to show when no more text comes."""
        if self.is_stopped:
            return ""
        if self._stop_start is not None:
            return self._cut()
        return self._release(self._num_read)

    def _advance(self, character: str) -> None:
        for matcher in list(self._matchers):
            if matcher.advance(character):
                start = self._num_read - matcher.matched
                earliest = start if self._stop_start is None else min(start, self._stop_start)
                self._stop_start = earliest
                self._matchers.remove(matcher)  # its next match could only begin later

    def _undecided_start(self) -> int:
        """The start of the earliest text that is, or may become, a stop string."""
        starts = [self._num_read - matcher.matched for matcher in self._matchers]
        return min(starts, default=self._num_read)

    def _cut(self) -> str:
        assert self._stop_start is not None
        self.is_stopped = True
        return self._release(self._stop_start)

    def _release(self, end: int) -> str:
        length, self._num_released = end - self._num_released, end
        released, self._held = self._held[:length], self._held[length:]
        return released
