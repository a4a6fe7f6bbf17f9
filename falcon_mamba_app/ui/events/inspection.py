"""What the state of the page's conversation holds, as the laboratory draws it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.inspection import HALF_LIFE_BOUNDS, HALF_LIFE_SHARES, MAX_TURNS_LOOKED_AT
from falcon_mamba_app.protocol import GenerationService, StateLook
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.chat_and_document import claim, page_of


class Inspection:
    """Answers the laboratory's question about the conversation that the page shows."""

    def __init__(self, service: GenerationService, sessions: Sessions) -> None:
        self._service, self._sessions = service, sessions

    async def look(self, data: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """The figures, or why there are none. A look counts as a reply of the visitor's."""
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        shown: dict[str, Any] = {"turn": asked.get("turn")}
        turns = asked.get("turns")
        is_allowed = isinstance(turns, int) and 1 <= turns <= MAX_TURNS_LOOKED_AT
        try:
            session = self._sessions.known(page_of(request))
            claim(self._sessions, session, request)
            visitor = session.visitor
            look = StateLook(
                max_turns=int(turns or 0) if is_allowed else StateLook().max_turns,
                begins_from=None if session.book is None else session.book.book_id,
                owner=f"look {visitor.line(None)}",
                weight=visitor.weight,
            )
            with visitor.replies(None):
                found = await self._service.inspect_state(session.id, look)
            visitor.count_tokens(found.num_tokens_read)
        except FalconMambaError as error:
            return {**shown, "problem": sentence_for(error)}
        bounds = {"bounds": HALF_LIFE_BOUNDS, "shares": HALF_LIFE_SHARES}
        return {**shown, **bounds, **asdict(found)}
