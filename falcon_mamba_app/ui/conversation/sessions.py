"""The visitors' conversations, each reachable only from its own page.

A page is one open browser tab or API client, known by the hash Gradio gives it; a session is one
conversation, known by a secret that also names its recurrent state in the service. The server's
copy of a conversation is the one that counts; the browser keeps another for after a restart.
Knows no model and no components; time is passed in through `clock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.settings import ServerSettings
from falcon_mamba_app.ui.conversation.kept import Kept
from falcon_mamba_app.ui.conversation.session import Busy as Busy
from falcon_mamba_app.ui.conversation.session import Lost as Lost
from falcon_mamba_app.ui.conversation.session import Remark as Remark
from falcon_mamba_app.ui.conversation.session import Session as Session
from falcon_mamba_app.ui.conversation.session_ids import SessionIds
from falcon_mamba_app.visitors import Visitor

GRACE_S = float(ServerSettings().keep_session_s)


class Sessions:
    """All sessions of the process, at most `max_sessions`; the longest unused one goes first.

    A session without a page is freed after `grace_s`, so that a reload, or a page whose connection
    broke, finds it. A session whose client never closed is freed after `idle_s`. `forget` is called
    with the id of each freed session, unless its conversation is kept.
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
        kept: Kept | None = None,
    ) -> None:
        self._ids = ids or SessionIds()
        self._forget = forget
        self.kept = kept or Kept(Keeping.nowhere(), forget)
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

    def shown_by(self, page: str) -> Session | None:
        """The page's session, if it has one: for events that only look, such as counting what is
        being typed. They must not begin one, or a page that was forgotten would pass for new.
        """
        return self._sessions.get(self._pages.get(page, ""))

    def known(self, page: str) -> Session:
        """The session of a page that has been opened. Raises Lost."""
        if self._pages.get(page) is None:
            raise Lost
        return self.of_page(page)

    async def fetch(self, session_id: str | None, owner: str | None) -> str | None:
        """Bring the owner's kept conversation of that id in, if it is not here, or has gone on at
        another copy of the server. None instead of the id of a conversation that is kept for
        another owner.
        """
        if not session_id:
            return session_id
        if session_id in self._sessions:
            await self._refresh(self._sessions[session_id], owner)
            return session_id
        opened = None if owner is None else await self.kept.open(owner, session_id)
        if opened is None:
            return None if await self.kept.has(session_id) else session_id
        if session_id not in self._sessions:
            session = Session(session_id, self._clock())
            session.tree, session.document, session.shelf = opened
            session.left_s = self._clock()
            self._sessions[session_id] = session
        return session_id

    async def _refresh(self, session: Session, owner: str | None) -> None:
        shelf = session.shelf
        if shelf is None or shelf.owner != owner or session.turn is not None:
            return
        if await self.kept.has_gone_on(shelf, session.id):
            opened = await self.kept.open(shelf.owner, session.id)
            if opened is not None and session.turn is None:
                session.tree, session.document, session.shelf = opened

    def resume(
        self, page: str, session_id: str | None, owner: str | None = None
    ) -> tuple[Session, bool]:
        """The session a returning browser remembers, and whether it is a new one.

        An id that the server does not know is adopted if it is signed: another process made it, or
        this one before it was restarted. For any other, and for a conversation that is kept for
        another owner, the session has a fresh id.
        """
        session = self._sessions.get(session_id or "")
        if session is None and session_id is not None and self._ids.is_ours(session_id):
            return self._show(page, self._new(session_id)), True
        if session is not None and session.shelf is not None and session.shelf.owner != owner:
            session = None
        return self._show(page, session or self._new()), session is None

    def has_kept(self, session_id: str, owner: str | None) -> bool:
        """Whether the session is here, and its conversation is kept for this owner."""
        session = self._sessions.get(session_id)
        shelf = None if session is None else session.shelf
        return shelf is not None and shelf.owner == owner

    def is_open_to(self, session_id: str, owner: str | None) -> bool:
        """Whether the session is here, and is not kept for somebody else."""
        session = self._sessions.get(session_id)
        return session is not None and (session.shelf is None or session.shelf.owner == owner)

    def writing(self) -> set[str]:
        """The sessions in which a reply is being written."""
        return {one.id for one in self._sessions.values() if one.turn is not None}

    def another(self) -> Session:
        """A new session, which no page shows yet."""
        return self._new()

    def show(self, page: str, session: Session) -> Session:
        """From now on the page shows this session; the one before stays for a while."""
        return self._show(page, session)

    def claim(self, session: Session, visitor: Visitor, owner: str | None = None) -> None:
        """Give the session to this visitor. A visitor over the limit loses the least recently used
        session, so that one visitor's pages cannot displace those of others.

        From now on the session's conversation is kept for the owner, if any. Raises Lost for a
        conversation of another owner, which a page may show whose visitor has signed out.
        """
        if session.shelf is not None and session.shelf.owner != owner:
            raise Lost
        if owner is not None and session.shelf is None:
            session.shelf = self.kept.shelf(owner)
        session.claimed_by = visitor
        own = [
            other
            for other in self._sessions.values()
            if other.claimed_by is not None and other.claimed_by.name == visitor.name
        ]
        for longest_unused in own[: max(0, len(own) - visitor.max_sessions)]:
            self._free(longest_unused)

    def clear(self, page: str) -> Session:
        """Begin another conversation on the page. The one before stays: in the library if it is
        kept, else for as long as that of a page that has gone, and its reply ends here.
        """
        session = self.of_page(page)
        has_words = session.turn is not None or len(session.tree) or session.document.text
        if not has_words and session.book is None:
            return session
        if session.shelf is None:
            session.catch_up()
            session.interrupt()
        anew = self._show(page, self._new())
        anew.shelf = session.shelf and self.kept.shelf(session.shelf.owner)
        anew.claimed_by = session.claimed_by
        return anew

    def let_go(self, owner: str | None) -> int:
        """Free all sessions whose conversations are kept for the owner; how many they were."""
        own = [one for one in self._sessions.values() if one.shelf and one.shelf.owner == owner]
        for session in own:
            assert session.shelf is not None, "nobody owns what is not kept"
            session.shelf.is_gone = True
            self._free(session)
        return len(own)

    def free_of(self, page: str) -> None:
        """Free what the page shows, with its state; it begins another conversation."""
        self._free(self.of_page(page))
        self.of_page(page)

    async def save(self, page: str) -> None:
        """Write what the page's conversation has become, if it is kept."""
        session = self._sessions.get(self._pages.get(page, ""))
        if session is not None:
            await session.save()

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
        if session.shelf is None:
            self._forget(session.id)
