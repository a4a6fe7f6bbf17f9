"""Side by side: one message answered twice from one state, or two branches that are there.

Two settings give two branches. The message is read once: the second reply begins with the state
that the first one began with. Both are shown until one of them is gone on with.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import gradio as gr

from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.events.answering import Answerer, only
from falcon_mamba_app.ui.events.chat_and_document import Updates, claim, moved, page_of, streams
from falcon_mamba_app.ui.events.message_actions import GONE
from falcon_mamba_app.ui.view.controls import ControlValues, restored_values, values_of
from falcon_mamba_app.ui.view.updates import Update, status_html


class Comparison:
    """One event, whose `op` is "ask", "show" or "pick"."""

    def __init__(self, service: GenerationService, sessions: Sessions, answerer: Answerer) -> None:
        self._service, self.sessions, self._answerer = service, sessions, answerer

    @streams
    def act(self, data: gr.EventData, request: gr.Request, *controls: Any) -> Updates:
        """Ask with the settings of the page and with the `values`, or show or pick a branch."""
        page, session = page_of(request), self.sessions.known(page_of(request))
        claim(self.sessions, session, request)
        session.refuse_if_busy()
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        if asked.get("op") != "ask":
            return only(self._changed(session, asked))
        text = asked.get("text")
        if not isinstance(text, str) or not text.strip():
            return only(Update())
        others = restored_values(asked.get("values"), self._service.stats().model)
        return self._both(page, session, text, values_of(controls), others)

    async def _both(
        self, page: str, session: Session, text: str, values: ControlValues, others: ControlValues
    ) -> Updates:
        """The second reply follows the first one, unless that was stopped or refused."""
        answer = self._answerer.answer(page, session, session.tree.head, text, values, composer="")
        turn = session.turn
        async with aclosing(answer) as updates:
            async for update in updates:
                turn = turn or session.turn
                yield update
        first = session.tree.head
        is_answered = first is not None and first.message.role == "assistant"
        if first is None or first.parent is None or not is_answered:
            return
        if turn is None or turn.is_stopped or turn.reply.phase != "finished":
            return
        again = self._answerer.again(page, session, first.parent, others, beside=first)
        async with aclosing(again) as updates:
            async for update in updates:
                yield update

    def _changed(self, session: Session, asked: dict[str, Any]) -> Update:
        node = session.tree.node(asked.get("id"))
        if node is None:
            return Update(status=status_html(GONE, phase="failed"))
        session.begin()
        session.tree.head = node
        siblings = session.tree.branches_after(node.parent)
        if asked.get("op") == "pick" or len(siblings) < 2:
            return moved(self._service, session, "It goes on from here; the other one is kept")
        at = siblings.index(node)
        pair = siblings[at - 1 : at + 1] if at else siblings[:2]
        session.pair = (pair[0].id, pair[1].id)
        return moved(self._service, session, "Side by side")
