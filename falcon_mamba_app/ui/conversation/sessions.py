"""The visitors' conversations, each reachable only from its own page.

A page is one open browser tab or API client, known by the hash Gradio gives it; a session is one
conversation, known by a secret that also names its recurrent state in the service. The server's
copy of a conversation is the one that counts; the browser keeps another for after a restart.
Knows no model and no components; time is passed in through `clock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.settings import ServerSettings
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.session_ids import SessionIds
from falcon_mamba_app.ui.conversation.tree import Node, Tree
from falcon_mamba_app.ui.conversation.turn import Turn
from falcon_mamba_app.visitors import Visitor

GRACE_S = float(ServerSettings().keep_session_s)


class Remark(NamedTuple):
    """A remark of the page below the conversation; the model never reads it."""

    title: str
    sentence: str


class Busy(FalconMambaError):
    """The session writes a reply already."""

    def __init__(self) -> None:
        super().__init__(
            "A reply is still being written in this conversation."
            " Stop it first, or wait for its end."
        )


class Lost(FalconMambaError):
    """An event of a page without a session: the server was restarted, or has freed the session."""

    def __init__(self) -> None:
        super().__init__("This page was away for long. It is being opened again")


@dataclass(slots=True, eq=False)
class Session:
    """One conversation. `turn` is the reply being written; one at a time, whatever the page.

    Between turns `tree` holds what is shown; during one, `catch_up` makes it so.
    """

    id: str
    last_used_s: float
    tree: Tree = field(default_factory=Tree)
    document: Document = field(default_factory=Document)
    removed: tuple[Node, int] | None = None  # the message taken out last, and which branch it was
    unanswered: str | None = None  # a message that got no reply, for the next page to return
    remark: Remark | None = None  # about the last turn
    is_cut: bool = False  # its last reply ended because no page watched it any more
    turn: Turn | None = None
    claimed_by: Visitor | None = None  # who used it last
    pages: set[str] = field(default_factory=set)  # that show it; the last one stays when it leaves
    left_s: float | None = None  # when its last page went away

    @property
    def visitor(self) -> Visitor:
        """The visitor for whom its replies count. Without one, no limit would apply."""
        assert self.claimed_by is not None, "a session is used that no visitor has claimed"
        return self.claimed_by

    @property
    def messages(self) -> list[Message]:
        """The branch of the conversation that is shown."""
        return self.tree.messages

    @property
    def context_tokens(self) -> int | None:
        """Tokens read and written up to the last message, as far as they are known."""
        head = self.tree.head
        return None if head is None or head.facts is None else head.facts.context_tokens

    def catch_up(self) -> None:
        """Bring the messages up to date with the reply being written."""
        if self.turn is not None:
            self.turn.target.take(self.turn.reply)

    def stamp(self, strip: str | None) -> None:
        """Keep the picture of the state after the reply that is shown last."""
        head = self.tree.head
        if strip is not None and head is not None and head.facts is not None:
            head.facts = replace(head.facts, strip=strip)

    def remove(self, node: Node) -> None:
        """Take a message and what follows it out of the conversation; the last one can be put
        back.
        """
        self.removed = node, self.tree.place_of(node)[0]
        self.tree.remove(node)

    def removed_node(self, node_id: object) -> Node | None:
        """The message taken out last, if it is this one."""
        return self.removed[0] if self.removed and self.removed[0].id == node_id else None

    def put_back(self, node: Node) -> bool:
        """Put the removed message back where it was; False when it is not the last removed."""
        if self.removed is None or self.removed[0] is not node:
            return False
        self.tree.restore(*self.removed)
        self.removed = None
        return True

    def take_unanswered(self) -> str | None:
        """The message that got no reply, once."""
        text, self.unanswered = self.unanswered, None
        return text

    def begin(self) -> None:
        """Begin a new turn: clear the remark and the unanswered message of the previous one."""
        self.unanswered, self.remark, self.is_cut = None, None, False

    def refuse_if_busy(self) -> None:
        """Raises Busy while a reply is being written."""
        if self.turn is not None:
            raise Busy

    def interrupt(self) -> None:
        """Stop the reply being written, if any, and let go of it."""
        if self.turn is not None:
            self.turn.drop()
            self.turn = None


class Sessions:
    """All sessions of the process, at most `max_sessions`; the longest unused one goes first.

    A session without a page is freed after `grace_s`, so that a reload, or a page whose connection
    broke, finds it. A session whose client never closed is freed after `idle_s`. `forget` is called
    with the id of each freed session.
    """

    def __init__(
        self,
        forget: Callable[[str], object],
        *,
        max_sessions: int = 2_000,
        grace_s: float = GRACE_S,
        idle_s: float = 6 * 3_600.0,
        clock: Callable[[], float] = time.monotonic,
        ids: SessionIds | None = None,
    ) -> None:
        self._ids = ids or SessionIds()
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

    def known(self, page: str) -> Session:
        """The session of a page that has been opened. Raises Lost."""
        if self._pages.get(page) is None:
            raise Lost
        return self.of_page(page)

    def resume(self, page: str, session_id: str | None) -> tuple[Session, bool]:
        """The session a returning browser remembers, and whether it is a new one.

        An id that the server does not know is adopted if it is signed: another process made it, or
        this one before it was restarted. For any other the session has a fresh id.
        """
        session = self._sessions.get(session_id or "")
        if session is None and session_id is not None and self._ids.is_ours(session_id):
            return self._show(page, self._new(session_id)), True
        return self._show(page, session or self._new()), session is None

    def claim(self, session: Session, visitor: Visitor) -> None:
        """Give the session to this visitor. A visitor over the limit loses the least recently used
        session, so that one visitor's pages cannot displace those of others.
        """
        session.claimed_by = visitor
        own = [
            other
            for other in self._sessions.values()
            if other.claimed_by is not None and other.claimed_by.name == visitor.name
        ]
        for longest_unused in own[: max(0, len(own) - visitor.max_sessions)]:
            self._free(longest_unused)

    def clear(self, page: str) -> Session:
        """Empty the page's conversation and drop its state. The id stays, for its other pages."""
        session = self.of_page(page)
        session.interrupt()
        session.begin()
        session.tree, session.document, session.removed = Tree(), Document(), None
        self._forget(session.id)
        return session

    def leave(self, page: str) -> None:
        """The page was closed, or its connection broke. `sweep` may free its session after
        `grace_s`, unless another page shows it; until then the page may continue.
        """
        session = self._sessions.get(self._pages.get(page, ""))
        if session is None:
            return
        if len(session.pages) > 1:
            self._hide(page, session)
        else:
            session.left_s = self._clock()

    @property
    def has_left(self) -> bool:
        """Whether a session is there that no page shows."""
        return any(session.left_s is not None for session in self._sessions.values())

    def sweep(self) -> None:
        """Free the sessions whose time has passed."""
        now_s = self._clock()
        for session in list(self._sessions.values()):
            is_left = session.left_s is not None and now_s - session.left_s >= self.grace_s
            if is_left or now_s - session.last_used_s >= self._idle_s:
                self._free(session)

    def _new(self, session_id: str | None = None) -> Session:
        return Session(id=session_id or self._ids.new(), last_used_s=self._clock())

    def _show(self, page: str, session: Session) -> Session:
        """Mark the session as shown by the page and as the one used last."""
        shown_before = self._sessions.get(self._pages.get(page, ""))
        if shown_before is not None and shown_before is not session:
            self.leave(page)
            self._hide(page, shown_before)
        now_s, is_absent = self._clock(), session.left_s is not None and page in session.pages
        if session.left_s is not None:
            for absent in session.pages - {page}:
                self._hide(absent, session)
        self._pages[page] = session.id
        session.pages.add(page)
        # A page that has left may still send an event that was on its way when its tab closed; it
        # will not leave again.
        session.left_s, session.last_used_s = (now_s if is_absent else None), now_s
        self._sessions.pop(session.id, None)
        self._sessions[session.id] = session
        while len(self._sessions) > self._max_sessions:
            self._free(next(iter(self._sessions.values())))
        return session

    def _hide(self, page: str, session: Session) -> None:
        session.pages.discard(page)
        self._pages.pop(page, None)

    def _free(self, session: Session) -> None:
        session.interrupt()
        del self._sessions[session.id]
        if session.claimed_by is not None:
            session.claimed_by.drop_session(session.id)
        for page in list(session.pages):
            self._hide(page, session)
        self._forget(session.id)
