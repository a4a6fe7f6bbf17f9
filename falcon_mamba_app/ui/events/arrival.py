"""Coming and going: what a page shows when it opens, while the model loads, and what it leaves.

Knows the service's status and the visitor's browser storage; writes no replies.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import gradio as gr

from falcon_mamba_app.protocol import GenerationService, ServiceStats
from falcon_mamba_app.ui.conversation.browser_copy import (
    parse_drafts,
    remembered,
    saved_conversation,
)
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.events.answering import Answerer, only
from falcon_mamba_app.ui.events.chat_and_document import Updates, claim, page_of, streams
from falcon_mamba_app.ui.gradio_patches.memory import PageMemory
from falcon_mamba_app.ui.view.controls import (
    CONTROL_NAMES,
    restored_values,
    shown_controls,
)
from falcon_mamba_app.ui.view.messages import shown_conversation
from falcon_mamba_app.ui.view.panel import Figures, shown_panel
from falcon_mamba_app.ui.view.readiness import idle_status, readiness
from falcon_mamba_app.ui.view.updates import SKIP, Update, busy_html, reply_status, status_html

MIN_SWEEP_INTERVAL_S = 1.0
CUT = "Cut off while you were away: use Retry"


class Arrival:
    """The events of opening, coming back, waiting and leaving."""

    def __init__(
        self,
        service: GenerationService,
        sessions: Sessions,
        answerer: Answerer,
        memory: PageMemory,
    ) -> None:
        self._service = service
        self.sessions = sessions
        self._answerer = answerer
        self._memory = memory
        self._sweeping: asyncio.TimerHandle | None = None

    async def load(self, saved: Any, settings: Any, is_narrow: Any, request: gr.Request) -> Any:
        """Find the visitor's session, restore their settings, and show the service's status."""
        kept, owner = remembered(saved), self.sessions.kept.owner_of(request)
        known_id = await self.sessions.fetch(kept.session_id, owner)
        session, is_new = self.sessions.resume(page_of(request), known_id, owner)
        self.sessions.sweep()  # afterwards: a late return is better than none
        claim(self.sessions, session, request)
        if is_new:
            kept.restore(session)
        stats = self._service.stats()
        shown = readiness(stats)._replace(panel=SKIP, status=SKIP)  # `attach` knows them better
        controls = shown_controls(restored_values(settings, stats.model), stats.model)
        return (saved_conversation(session), gr.update(open=not is_narrow), *shown, *controls)

    @streams
    def attach(self, drafts: Any, request: gr.Request) -> Updates:
        """Show a page that has opened its conversation, and the reply being written, to its end."""
        page = page_of(request)
        session = self.sessions.known(page)
        shown = self._whole(session)
        kept = parse_drafts(drafts)
        returned = [text for text in (session.take_unanswered(), kept.composer) if text]
        if kept.document and session.turn is None and not kept.is_busy:
            shown = shown._replace(document=kept.document)
        status = _status(self._service.stats(), session)
        return self._show(
            page, session, shown._replace(returned="\n".join(returned) or SKIP, status=status)
        )

    @streams
    def refresh(self, request: gr.Request) -> Updates:
        """Another tab of the browser has changed the conversation: show it here too."""
        page = page_of(request)
        session = self.sessions.known(page)
        if session.turn is not None and session.turn.is_watched_by(page):
            return only()
        return self._show(page, session, self._whole(session))

    def changed_to(self, page: str, session: Session) -> Updates:
        """Show a page that has changed to this session all of it."""
        status, saved = _status(self._service.stats(), session), saved_conversation(session)
        return self._show(page, session, self._whole(session)._replace(status=status, saved=saved))

    async def _show(self, page: str, session: Session, shown: Update) -> Updates:
        yield shown
        async with aclosing(self._answerer.follow(page, session)) as updates:
            async for update in updates:
                yield update

    def _whole(self, session: Session) -> Update:
        """Everything that a page shows of its session but the status. Saves nothing in the browser:
        tabs that answer each other's savings by savings would never end.
        """
        session.catch_up()
        return Update(
            transcript=shown_conversation(session),
            growing="",
            document=session.document.text,
            panel=shown_panel(Figures.at_rest(self._service.stats(), session)),
            busy=busy_html(session.turn is not None),
        )

    async def tick(self, settings: Any) -> Any:
        """While the model loads: its progress; once it is ready, the page as it will be."""
        stats = self._service.stats()
        model = stats.model
        controls = (
            [SKIP] * (1 + len(CONTROL_NAMES))
            if stats.status == "loading"
            else shown_controls(restored_values(settings, model), model)
        )
        return (*readiness(stats), *controls)

    def leave(self, page: str) -> None:
        """The page was closed: free its session after a while, unless it comes back."""
        self.sessions.leave(page)
        self._memory.forget_soon(page)
        if self._sweeping is None:
            self._sweep_later()

    def _sweep_later(self) -> None:
        delay_s = max(self.sessions.grace_s, MIN_SWEEP_INTERVAL_S)
        self._sweeping = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        self.sessions.sweep()
        self._sweeping = None
        if self.sessions.has_left:
            self._sweep_later()


def _status(stats: ServiceStats, session: Session) -> str:
    """The status line of a page that comes to its conversation."""
    if session.turn is not None:
        return reply_status(session.turn.reply)
    if session.is_cut:
        return status_html(CUT, phase="stopped")
    return idle_status(stats)
