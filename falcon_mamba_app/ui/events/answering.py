"""From a session and a new text to the updates of the page: one chat reply, one continuation.

A turn is begun for the session and then watched by the page, as by any page that comes back to it
later (`follow`).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import (
    Conversation,
    GenerationRequest,
    GenerationService,
    Message,
    Text,
)
from falcon_mamba_app.ui.conversation.begin_turn import (
    begin_turn,
    check_length,
    sentence_for,
    update_interval_s,
)
from falcon_mamba_app.ui.conversation.browser_copy import saved_conversation
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.sessions import Remark, Session
from falcon_mamba_app.ui.conversation.turn import ALONE_S, Target
from falcon_mamba_app.ui.events.targets import ChatTarget, DocumentTarget, conversation
from falcon_mamba_app.ui.view.controls import ControlValues, sampling_params
from falcon_mamba_app.ui.view.updates import SKIP, PanelPace, Update, busy_buttons, status_html


def chat_request(
    session: Session, messages: list[Message], values: ControlValues, *, max_chars: int
) -> GenerationRequest:
    """The request that answers the last of `messages`. Raises InvalidRequest."""
    check_length(messages[-1].content, max_chars)
    sampling = sampling_params(values)
    prompt = values.system_prompt.strip()
    system = [Message("system", prompt)] if prompt else []
    conversation = Conversation((*system, *messages))
    return GenerationRequest(prompt=conversation, sampling=sampling, session_id=session.id)


class Answerer:
    """Begins replies in sessions, one at a time, and shows them to pages.

    Raises Busy before anything is changed. A reply without a page ends after `alone_s`. A page that
    `is_behind` in reading is told less often, and always of the end.
    """

    def __init__(
        self,
        service: GenerationService,
        *,
        max_chars: int,
        alone_s: float = ALONE_S,
        is_behind: Callable[[str], bool] = lambda page: False,
    ) -> None:
        self._service = service
        self._max_chars = max_chars
        self._alone_s = alone_s
        self._is_behind = is_behind

    async def answer(
        self,
        page: str,
        session: Session,
        earlier: list[Message],
        text: str,
        values: ControlValues,
        *,
        composer: Any = SKIP,
    ) -> AsyncGenerator[Update, None]:
        """Answer `text` after the `earlier` messages, which may be fewer than the session has.

        `composer` is what the composer holds once the text is taken.
        """
        session.refuse_if_busy()
        asked = [*earlier, Message("user", text)]
        try:
            request = chat_request(session, asked, values, max_chars=self._max_chars)
        except FalconMambaError as error:
            yield _refused(session, asked, sentence_for(error))._replace(composer=composer)
            return
        self._begin(session, request, ChatTarget(session, asked))
        opening = {"composer": composer, "saved": saved_conversation(session)}
        async with aclosing(self.follow(page, session, **opening)) as updates:
            async for update in updates:
                yield update

    async def extend(
        self, page: str, session: Session, text: str, values: ControlValues
    ) -> AsyncGenerator[Update, None]:
        """Let the model continue `text`, as a base model does."""
        session.refuse_if_busy()
        try:
            check_length(text, self._max_chars)
            request = GenerationRequest(
                prompt=Text(text), sampling=sampling_params(values), session_id=session.id
            )
        except FalconMambaError as error:
            yield Update(status=status_html(sentence_for(error), phase="failed"))
            return
        self._begin(session, request, DocumentTarget(session, text))
        async with aclosing(self.follow(page, session)) as updates:
            async for update in updates:
                yield update

    async def follow(
        self, page: str, session: Session, **opening: Any
    ) -> AsyncGenerator[Update, None]:
        """Show the reply being written, if one is, from where it is to its end.

        `opening` is what its first update changes besides.
        """
        turn = session.turn
        if turn is None:
            return
        pace, beats = PanelPace(self._service.stats), itertools.count()
        interval_s = update_interval_s(self._service.stats(), num_messages=len(session.messages))
        opening |= busy_buttons(True)
        async with aclosing(turn.watch(page, interval_s)) as replies:
            async for reply in replies:
                if self._is_behind(page) and not reply.is_over:
                    continue
                panel = self._panel(pace, session, reply)
                update: Update = turn.target.update(reply, panel=panel)
                yield update._replace(beat=str(next(beats)), **opening)
                opening = {}
        if not turn.is_watched_by(page):  # else its newer watch goes on
            yield Update(**busy_buttons(False))

    def _begin(self, session: Session, request: GenerationRequest, target: Target) -> None:
        begin_turn(self._service, session, request, target, alone_s=self._alone_s)

    def _panel(self, pace: PanelPace, session: Session, reply: Reply) -> Any:
        if reply.is_over and not reply.text:
            return pace.render_idle(session.context_tokens)
        return pace.render(reply)


def _refused(session: Session, asked: list[Message], reason: str) -> Update:
    """The conversation as it is, why, and the message unless it is in the conversation."""
    is_kept = session.messages[: len(asked)] == asked
    where = "" if is_kept else " Your message is back in the box below."
    session.remark = Remark("Not sent", reason + where)
    return Update(
        conversation(session),
        returned=SKIP if is_kept else asked[-1].content,
        status=status_html("Not sent", phase="failed"),
    )
