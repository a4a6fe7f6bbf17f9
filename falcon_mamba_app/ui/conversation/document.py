"""The completion page's text, and what the model wrote into it.

Undo takes back what the model wrote, one continuation at a time, wherever it stands by now, and
never what somebody typed. It knows no model and no page.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_CONTINUATIONS = 100


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote, at which character of the text."""

    at: int
    written: str


@dataclass(slots=True)
class Document:
    """`text` is as the server knows it; a page may have typed on since."""

    text: str = ""
    continuations: list[Continuation] = field(default_factory=list)  # the newest last

    def written(self, before: str, written: str) -> None:
        """The model has continued `before`."""
        self.text = before + written
        if written:
            self.continuations.append(Continuation(len(before), written))
            del self.continuations[:-MAX_CONTINUATIONS]

    def taken_back(self, shown: str) -> str | None:
        """The `shown` text without the newest continuation that is still whole in it; None when
        there is none. Continuations that somebody has edited are theirs by now.
        """
        while self.continuations:
            newest = self.continuations.pop()
            at = _place_of(newest, shown)
            if at is not None:
                self.text = shown[:at] + shown[at + len(newest.written) :]
                return self.text
        return None


def _place_of(continuation: Continuation, shown: str) -> int | None:
    """Where the continuation stands in the text: where it was written, or else where it is last."""
    if shown.startswith(continuation.written, continuation.at):
        return continuation.at
    found = shown.rfind(continuation.written)
    return None if found < 0 else found
