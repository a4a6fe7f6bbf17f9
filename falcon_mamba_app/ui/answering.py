"""From a session and a new text to the updates of the page: one chat reply, one continuation.

While a reply is written the session holds what is shown, so a page that vanishes in mid-sentence
leaves exactly that sentence behind. A turn that ends without a word leaves the session as it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationRequest, GenerationService, Message
from falcon_mamba_app.ui.controls import ControlValues, sampling_params
from falcon_mamba_app.ui.sessions import Session, saved_conversation
from falcon_mamba_app.ui.turn import Reply
from falcon_mamba_app.ui.updates import (
    SKIP,
    PanelPace,
    Update,
    bubbles,
    busy_buttons,
    notice,
    reply_status,
    status_html,
)
from falcon_mamba_app.ui.writing import check_length, sentence_for, write_reply


def chat_request(
    session: Session, messages: list[Message], values: ControlValues, *, max_chars: int
) -> GenerationRequest:
    """The request that answers the last of `messages`. Raises InvalidRequest."""
    check_length(messages[-1].content, max_chars)
    prompt = values.system_prompt.strip()
    system = [Message("system", prompt)] if prompt else []
    return GenerationRequest(
        prompt=(*system, *messages), sampling=sampling_params(values), session_id=session.id
    )


class Answerer:
    """Writes replies into sessions, one at a time: raises Busy before it changes anything."""

    def __init__(self, service: GenerationService, *, max_chars: int) -> None:
        self._service = service
        self._max_chars = max_chars

    async def answer(
        self,
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
        before = list(session.messages)
        asked = [*earlier, Message("user", text)]
        try:
            request = chat_request(session, asked, values, max_chars=self._max_chars)
        except FalconMambaError as error:
            status = status_html("Not sent", phase="failed")
            yield _unanswered(before, asked, sentence_for(error))._replace(
                composer=composer, status=status
            )
            return
        shown = bubbles(asked)
        pace = PanelPace(self._service.stats)
        async with aclosing(write_reply(self._service, session, request)) as replies:
            async for reply in replies:
                if reply.is_over and not reply.text:
                    session.messages, session.is_cut = before, False
                    yield _unanswered(before, asked, reply.error)._replace(
                        status=reply_status(reply), panel=pace.render_idle(session.context_tokens)
                    )
                    break
                answer = [Message("assistant", reply.text)] if reply.text else []
                session.messages = [*asked, *answer]
                step = _step(session, shown + bubbles(answer), reply, panel=pace.render(reply))
                if reply.phase == "starting":
                    session.is_cut = False
                    step = step._replace(composer=composer, **busy_buttons(True))
                yield step
        yield Update(**busy_buttons(False))

    async def extend(
        self, session: Session, text: str, values: ControlValues
    ) -> AsyncGenerator[Update, None]:
        """Let the model continue `text`, as a base model does."""
        try:
            check_length(text, self._max_chars)
            request = GenerationRequest(
                prompt=text, sampling=sampling_params(values), session_id=session.id
            )
        except FalconMambaError as error:
            yield Update(status=status_html(sentence_for(error), phase="failed"))
            return
        pace = PanelPace(self._service.stats)
        async with aclosing(write_reply(self._service, session, request)) as replies:
            async for reply in replies:
                session.document_before = text
                status = reply_status(reply)
                if reply.error:
                    status = status_html(reply.error, phase="failed")
                yield Update(
                    document=text + reply.text,
                    status=status,
                    panel=pace.render(reply),
                    **(busy_buttons(True) if reply.phase == "starting" else {}),
                )
        yield Update(**busy_buttons(False))


def _step(session: Session, shown: list[Any], reply: Reply, *, panel: Any) -> Update:
    """One update of a reply that has begun; the last one also saves the conversation."""
    session.contexts[len(session.messages)] = reply.context_tokens
    if not reply.is_over:
        return Update(transcript=shown, status=reply_status(reply), panel=panel)
    if reply.error:
        shown = [*shown, notice(f"The reply broke off. {reply.error}", title="Broken off")]
    return Update(
        transcript=shown,
        status=reply_status(reply),
        panel=panel,
        saved=saved_conversation(session),
    )


def _unanswered(before: list[Message], asked: list[Message], reason: str | None) -> Update:
    """The conversation as it was, the reason if it failed, and the message unless it is in it."""
    is_kept = before[: len(asked)] == asked
    shown = bubbles(before)
    if reason:
        where = "" if is_kept else " Your message is back in the box below."
        shown.append(notice(reason + where, title="Not sent"))
    return Update(transcript=shown, returned=SKIP if is_kept else asked[-1].content)
