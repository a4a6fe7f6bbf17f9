"""From a session and a new text to the updates of the page: one chat reply, one continuation.

A turn is begun for the session and then watched by the page, as by any page that comes back to it
later (`follow`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, replace
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
from falcon_mamba_app.ui.conversation.exact_ids import continued, digest
from falcon_mamba_app.ui.conversation.recording import Asked, Recording, save_while_written
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.sessions import Remark, Session
from falcon_mamba_app.ui.conversation.tree import Node
from falcon_mamba_app.ui.conversation.turn import ALONE_S, Target
from falcon_mamba_app.ui.events.targets import ChatTarget, DocumentTarget
from falcon_mamba_app.ui.view.answer_form import form_of
from falcon_mamba_app.ui.view.controls import ControlValues, in_words, sampling_params
from falcon_mamba_app.ui.view.messages import shown_conversation
from falcon_mamba_app.ui.view.panel import Figures, shown_panel
from falcon_mamba_app.ui.view.updates import SKIP, PanelPace, Update, busy_html, status_html

# A stopped reply leaves the engine with its next step; the figures are shown again after that.
SETTLE_S = 0.5
SETTLE_CHECKS = 10


def chat_request(
    session: Session, messages: list[Message], values: ControlValues, *, max_chars: int
) -> GenerationRequest:
    """The request that answers the last of `messages`, or continues it if it is the model's.
    Raises InvalidRequest.
    """
    check_length(messages[-1].content, max_chars)
    sampling = sampling_params(values)
    prompt = values.system_prompt.strip()
    system = [Message("system", prompt)] if prompt else []
    conversation = Conversation((*system, *messages))
    form = form_of(values.answer_as, values.form_details)
    return GenerationRequest(
        prompt=conversation,
        sampling=sampling,
        session_id=session.id,
        keeps_state=session.shelf is not None,
        form=form,
    )


async def only(*updates: Update) -> AsyncGenerator[Update, None]:
    """The updates, as a generator."""
    for update in updates:
        yield update


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

    def answer(
        self,
        page: str,
        session: Session,
        after: Node | None,
        text: str,
        values: ControlValues,
        *,
        composer: Any = SKIP,
    ) -> AsyncGenerator[Update, None]:
        """Answer `text`, said after the message `after`.

        `composer` is what the composer holds once the text is taken.
        """
        session.refuse_if_busy()
        earlier = [] if after is None else [node.message for node in after.path()]
        try:
            request = self._request(session, [*earlier, Message("user", text)], values)
        except FalconMambaError as error:
            return only(_refused(session, text, sentence_for(error))._replace(composer=composer))
        asked = session.tree.add(after, Message("user", text))
        return self._reply(page, session, request, asked, values, composer=composer)

    def again(
        self,
        page: str,
        session: Session,
        asked: Node,
        values: ControlValues,
        *,
        beside: Node | None = None,
    ) -> AsyncGenerator[Update, None]:
        """Answer a message of the conversation once more. The replies that it has stay; the one
        `beside` which this is written stays in sight.
        """
        session.refuse_if_busy()
        messages = [node.message for node in asked.path()]
        try:
            request = self._request(session, messages, values)
        except FalconMambaError as error:
            return only(_refused(session, None, sentence_for(error)))
        return self._reply(page, session, request, asked, values, beside=beside)

    def go_on(
        self, page: str, session: Session, reply: Node, values: ControlValues
    ) -> AsyncGenerator[Update, None]:
        """Continue a reply that was stopped or that reached its limit."""
        session.refuse_if_busy()
        assert reply.parent is not None, "a reply follows a message"
        messages = [node.message for node in reply.path()]
        try:
            request = self._request(session, messages, values)
        except FalconMambaError as error:
            return only(_refused(session, None, sentence_for(error)))
        return self._reply(page, session, request, reply.parent, values, continues=reply)

    def extend(
        self, page: str, session: Session, text: str, values: ControlValues
    ) -> AsyncGenerator[Update, None]:
        """Let the model continue `text`, as a base model does."""
        session.refuse_if_busy()
        try:
            check_length(text, self._max_chars)
            request = GenerationRequest(
                prompt=Text(text),
                sampling=sampling_params(values),
                session_id=session.id,
                keeps_state=session.shelf is not None,
                form=form_of(values.answer_as, values.form_details),
            )
        except FalconMambaError as error:
            return only(Update(status=status_html(sentence_for(error), phase="failed")))
        self._begin(session, request, DocumentTarget(session, text))
        if session.shelf is not None:
            session.shelf.keep_running(save_while_written(session))
        return self.follow(page, session)

    async def follow(
        self, page: str, session: Session, **opening: Any
    ) -> AsyncGenerator[Update, None]:
        """Show the reply being written, if one is, from where it is to its end.

        `opening` is what its first update changes besides.
        """
        turn = session.turn
        if turn is None:
            return
        pace, beats = PanelPace(), itertools.count()
        interval_s = update_interval_s(self._service.stats(), num_messages=len(session.messages))
        opening["busy"] = busy_html(True)
        conversation_is_shown = is_ended = False
        async with aclosing(turn.watch(page, interval_s)) as replies:
            async for reply in replies:
                if self._is_behind(page) and not reply.is_over:
                    continue
                panel = SKIP
                if pace.is_due(reply):
                    reply.strip = await self._service.sketch(session.id)
                    panel = self._panel(session, reply)
                if reply.is_over:
                    session.stamp(reply.strip)
                update: Update = turn.target.update(reply, panel=panel)
                if conversation_is_shown and not reply.is_over:
                    update = update._replace(transcript=SKIP)  # as it was sent before
                conversation_is_shown = True
                if is_ended := turn.is_over:  # who reads the last words can send at once
                    opening["busy"] = busy_html(session.turn is not None)
                yield update._replace(beat=str(next(beats)), **opening)
                opening = {}
        if is_ended and turn.is_stopped:
            await self._settling()
            if session.turn is None:
                yield Update(panel=self._panel(session, turn.reply))

    async def _settling(self) -> None:
        """Return when the engine has noticed the end of a stopped reply, with its next step."""
        running = self._service.stats().running
        for _ in range(SETTLE_CHECKS):
            if self._service.stats().running != running:
                return
            await asyncio.sleep(SETTLE_S / SETTLE_CHECKS)

    async def _reply(
        self,
        page: str,
        session: Session,
        request: GenerationRequest,
        asked: Node,
        values: ControlValues,
        *,
        continues: Node | None = None,
        beside: Node | None = None,
        **opening: Any,
    ) -> AsyncGenerator[Update, None]:
        model = self._service.stats().model
        target = ChatTarget(
            session,
            asked,
            continues=continues,
            settings=in_words(values),
            model="" if model is None else model.id,
            system=digest(values.system_prompt.strip()),
            beside=beside,
        )
        session.system_prompt = values.system_prompt.strip()
        request = self._by_ids(session, request, asked, values)
        recording = self._recording(session, request, asked, values, continues, target.reply_id)
        self._begin(session, request, target, recording)
        opening |= {"saved": saved_conversation(session)}
        async with aclosing(self.follow(page, session, **opening)) as updates:
            async for update in updates:
                yield update

    def _request(
        self, session: Session, messages: list[Message], values: ControlValues
    ) -> GenerationRequest:
        return chat_request(session, messages, values, max_chars=self._max_chars)

    def _by_ids(
        self, session: Session, request: GenerationRequest, asked: Node, values: ControlValues
    ) -> GenerationRequest:
        """The same request by the ids of a kept conversation, where the model can go on by them."""
        model, system_prompt = self._service.stats().model, values.system_prompt.strip()
        if model is None or not model.can_continue:
            return request
        prompt = continued(
            request.prompt, session.shelf, asked, model=model.id, system_prompt=system_prompt
        )
        return replace(request, prompt=prompt)

    def _recording(
        self,
        session: Session,
        request: GenerationRequest,
        asked: Node,
        values: ControlValues,
        continues: Node | None,
        reply_id: str,
    ) -> Recording | None:
        """What writes the reply into the library, if the conversation is kept."""
        model, shelf = self._service.stats().model, session.shelf
        if shelf is None:
            return None
        known = Asked(
            conversation_id=session.id,
            reply_id=reply_id,
            parent_id=asked.id,
            begun="" if continues is None else continues.message.content,
            model=None if model is None else model.id,
            sampling=asdict(request.sampling),
            system_prompt=values.system_prompt.strip(),
            prompt=request.prompt,
            settings=in_words(values),
        )
        return Recording(shelf, known, before=session.save())

    def _begin(
        self,
        session: Session,
        request: GenerationRequest,
        target: Target,
        recording: Recording | None = None,
    ) -> None:
        alone_s = self._alone_s
        begin_turn(self._service, session, request, target, alone_s=alone_s, recording=recording)

    def _panel(self, session: Session, reply: Reply) -> Any:
        stats = self._service.stats()
        if reply.is_over and not reply.text:
            return shown_panel(Figures.at_rest(stats, session))
        return shown_panel(Figures.of(stats, reply))


def _refused(session: Session, text: str | None, reason: str) -> Update:
    """The conversation as it is, why, and the text, unless it is in the conversation."""
    where = "" if text is None else " Your message is back below."
    session.remark = Remark("Not sent", reason + where)
    return Update(
        shown_conversation(session),
        returned=SKIP if text is None else text,
        status=status_html("Not sent", phase="failed"),
    )
