"""The visitors' conversations, each reachable only from its own page.

A page is one open browser tab or API client, known by the hash Gradio gives it; a session is one
conversation, known by a secret that also names its recurrent state in the service. The server's
copy of a conversation is the one that counts; the browser keeps another for after a restart.
Knows no model and no components; time is passed in through `clock`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.turn import Turn
from falcon_mamba_app.visitors import Visitor, anybody

# What a browser is asked to keep, and the most that is taken back from one; it has about 5 MB.
MAX_SAVED_CHARS = 1_000_000
MAX_SAVED_MESSAGES = 10_000


class Busy(FalconMambaError):
    """The session writes a reply already."""

    def __init__(self) -> None:
        super().__init__(
            "A reply is still being written in this conversation."
            " Stop it first, or wait for its end."
        )


@dataclass(slots=True, eq=False)
class Session:
    """One conversation. `turn` is the reply being written; one at a time, whatever the page.

    `messages` holds exactly what was shown, a reply in progress included. A user's message at the
    end without a reply is one that failed or was stopped before its first word.
    """

    id: str
    last_used_s: float
    messages: list[Message] = field(default_factory=list)
    document_before: str | None = None  # the completion page's text before its last continuation
    contexts: dict[int, int | None] = field(default_factory=dict)  # tokens after so many messages
    is_cut: bool = False  # its last reply ended because its page went away
    turn: Turn | None = None
    visitor: Visitor = field(default_factory=anybody)  # who used it last
    left_s: float | None = None  # when its last page went away

    @property
    def context_tokens(self) -> int | None:
        """Tokens read and written up to the last message, as far as they are known."""
        return self.contexts.get(len(self.messages))

    def take_unanswered(self) -> str | None:
        """Remove the user's message that got no reply, and return its text."""
        if self.messages and self.messages[-1].role == "user":
            self.is_cut = False
            return self.messages.pop().content
        return None

    def last_user_index(self, index: int) -> int | None:
        """Where the user's message at or before `index` stands; None when there is none."""
        for at in range(min(index, len(self.messages) - 1), -1, -1):
            if self.messages[at].role == "user":
                return at
        return None

    def refuse_if_busy(self) -> None:
        """Raises Busy while a reply is being written."""
        if self.turn is not None:
            raise Busy

    def interrupt(self) -> None:
        """Stop the reply being written, if any, and let go of it."""
        if self.turn is not None:
            self.is_cut = True
            self.turn.stop()
            self.turn = None


class Sessions:
    """All sessions of the process, at most `max_sessions`; the longest unused one goes first.

    A session that no page shows any more is freed after `grace_s`, so that a reload finds it; one
    whose client never said goodbye, after `idle_s`. `forget` is told the id of each freed session.
    """

    def __init__(
        self,
        forget: Callable[[str], None],
        *,
        max_sessions: int = 2_000,
        grace_s: float = 60.0,
        idle_s: float = 6 * 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._forget = forget
        self._max_sessions = max_sessions
        self.grace_s = grace_s
        self._idle_s = idle_s
        self._clock = clock
        self._sessions: dict[str, Session] = {}  # the longest unused first
        self._pages: dict[str, str] = {}  # page → session id

    def __len__(self) -> int:
        return len(self._sessions)

    def of_page(self, page: str) -> Session:
        """The page's session; a new one for a page not seen before, or whose session is freed."""
        session = self._sessions.get(self._pages.get(page, ""))
        return self._show(page, session or self._new())

    def resume(self, page: str, session_id: str | None, messages: Sequence[Message]) -> Session:
        """The session a returning browser remembers.

        An id the server does not know is never adopted: the conversation then starts again from
        `messages` under a fresh id.
        """
        session = self._sessions.get(session_id or "")
        if session is None:
            session = self._new()
            session.messages = list(messages)
        return self._show(page, session)

    def clear(self, page: str) -> Session:
        """Empty the page's conversation and drop its state. The id stays, for its other pages."""
        session = self.of_page(page)
        session.interrupt()
        session.messages.clear()
        session.contexts.clear()
        session.document_before, session.is_cut = None, False
        self._forget(session.id)
        return session

    def leave(self, page: str) -> None:
        """The page was closed: nobody reads its reply any more, so that ends now, even one that
        still waits in line. Its session may be freed `grace_s` from now, by `sweep`.
        """
        session = self._sessions.get(self._pages.pop(page, ""))
        if session is None or session.id in self._pages.values():
            return
        session.left_s = self._clock()
        if session.turn is not None:
            session.is_cut = True
            session.turn.stop()

    def sweep(self) -> None:
        """Free the sessions that nobody will come back to."""
        now_s = self._clock()
        for session in list(self._sessions.values()):
            is_left = session.left_s is not None and now_s - session.left_s >= self.grace_s
            if is_left or now_s - session.last_used_s >= self._idle_s:
                self._free(session)

    def _new(self) -> Session:
        return Session(id=secrets.token_urlsafe(24), last_used_s=self._clock())

    def _show(self, page: str, session: Session) -> Session:
        """Mark the session as shown by the page and as the one used last."""
        if self._pages.get(page) != session.id:
            self.leave(page)
        self._pages[page] = session.id
        session.left_s, session.last_used_s = None, self._clock()
        self._sessions.pop(session.id, None)
        self._sessions[session.id] = session
        while len(self._sessions) > self._max_sessions:
            self._free(next(iter(self._sessions.values())))
        return session

    def _free(self, session: Session) -> None:
        session.interrupt()
        del self._sessions[session.id]
        session.visitor.drop_session(session.id)
        for page in [page for page, id_ in self._pages.items() if id_ == session.id]:
            del self._pages[page]
        self._forget(session.id)


def saved_conversation(session: Session) -> dict[str, Any]:
    """What the visitor's browser keeps for after a reload: the id, and the texts if they fit."""
    texts = [[message.role, message.content] for message in session.messages]
    return {"id": session.id, "messages": texts if _fit(session.messages) else []}


def remembered_messages(saved: object) -> list[Message]:
    """The messages a browser kept, as far as they are sound: user and assistant by turns.

    None of them where there are more than are ever saved.
    """
    texts = saved.get("messages") if isinstance(saved, dict) else None
    messages: list[Message] = []
    for entry in texts if isinstance(texts, list) else []:
        expected = "user" if len(messages) % 2 == 0 else "assistant"
        match entry:
            case [role, str(content)] if role == expected and len(messages) <= MAX_SAVED_MESSAGES:
                messages.append(Message(expected, content))  # type: ignore[arg-type]
            case _:
                break
    return messages[: len(messages) // 2 * 2] if _fit(messages) else []


def _fit(messages: Sequence[Message]) -> bool:
    """Whether a browser has room for them."""
    num_chars = sum(len(message.content) for message in messages)
    return len(messages) <= MAX_SAVED_MESSAGES and num_chars <= MAX_SAVED_CHARS
