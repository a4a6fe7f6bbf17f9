"""The page's events as async functions: which session, which messages, then what to show.

The server's session is authoritative; a page sends a new text and its controls, never the history.
While a reply is being written, whatever would start another or change the past is refused: Busy.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.browser_copy import saved_conversation
from falcon_mamba_app.ui.conversation.sessions import Busy, Lost, Session, Sessions
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.targets import conversation
from falcon_mamba_app.ui.view.controls import values_of
from falcon_mamba_app.ui.view.message_text import typed
from falcon_mamba_app.ui.view.metrics_panel import Figures, render_panel
from falcon_mamba_app.ui.view.updates import SKIP, Update, busy_buttons, status_html
from falcon_mamba_app.visitors import Visitor, visitor_in

Updates = AsyncGenerator[Update, None]
P = ParamSpec("P")


def page_of(request: gr.Request) -> str:
    """The tab's or client's own hash."""
    assert request.session_hash is not None, "Gradio gives every call a session hash"
    return request.session_hash


def visitor_of(request: gr.Request) -> Visitor:
    """Whom the limits count the call for."""
    return visitor_in(request.state)


def streams(handler: Callable[P, Updates]) -> Callable[P, Updates]:
    """An event function that yields a handler's updates, and closes them when it is closed."""

    @wraps(handler)
    async def stream(*args: P.args, **kwargs: P.kwargs) -> Updates:
        try:
            async with aclosing(handler(*args, **kwargs)) as updates:
                async for update in updates:
                    yield update
        except Busy as error:
            yield Update(status=status_html(str(error), phase="failed"))
        except Lost as error:  # assets/page.js opens the page again
            yield Update(status=status_html(str(error), phase="lost"))

    return stream


async def only(*updates: Update) -> Updates:
    """The updates, as a generator."""
    for update in updates:
        yield update


class _Handlers:
    """What the chat's and the completion page's events share."""

    def __init__(self, service: GenerationService, sessions: Sessions, answerer: Answerer) -> None:
        self._service = service
        self._sessions = sessions
        self._answerer = answerer

    def _session(self, request: gr.Request) -> Session:
        session = self._sessions.known(page_of(request))
        self._sessions.claim(session, visitor_of(request))
        return session

    async def stop(self, request: gr.Request) -> None:
        """End the reply being written. Whoever watches it shows what is kept."""
        with suppress(Lost):
            turn = self._session(request).turn
            if turn is not None:
                turn.stop()

    def _cleared(self, request: gr.Request) -> Session:
        self._session(request)
        return self._sessions.clear(page_of(request))

    def _idle_panel(self, session: Session) -> str:
        stats = self._service.stats()
        return render_panel(Figures(stats=stats, context_tokens=session.context_tokens))


class ChatHandlers(_Handlers):
    """The chat: send, retry, undo, edit, example, clear."""

    @streams
    def send(self, text: str, request: gr.Request, *controls: Any) -> Updates:
        """Answer a new message. A blank one does nothing."""
        page, session = page_of(request), self._session(request)
        return self._answer(page, session, len(session.messages), text, controls, composer="")

    @streams
    def retry(self, request: gr.Request, *controls: Any) -> Updates:
        """Answer the last message once more, instead of the reply it got."""
        session = self._session(request)
        at = session.last_user_index(len(session.messages))
        if at is None:
            return only(Update(status=status_html("Nothing to retry")))
        text = session.messages[at].content
        return self._answer(page_of(request), session, at, text, controls)

    @streams
    def edit(self, data: gr.EditData, request: gr.Request, *controls: Any) -> Updates:
        """Replace a user's message and answer from there; what came later is dropped."""
        session, text = self._session(request), _text_of(data.value)
        index = session.last_user_index(_index(data))
        if index is None or not text.strip():
            return only(Update(transcript=conversation(session)))
        return self._answer(page_of(request), session, index, text, controls)

    @streams
    def example(self, data: gr.SelectData, request: gr.Request, *controls: Any) -> Updates:
        """Send an example prompt."""
        page, session, text = page_of(request), self._session(request), _text_of(data.value)
        return self._answer(page, session, len(session.messages), text, controls)

    @streams
    def undo(self, request: gr.Request) -> Updates:
        """Take the last exchange back; the user's text returns to the composer."""
        session = self._session(request)
        session.refuse_if_busy()
        at = session.last_user_index(len(session.messages))
        if at is None:
            return only(Update(status=status_html("Nothing to undo")))
        session.begin()
        text, session.messages = session.messages[at].content, session.messages[:at]
        return only(
            Update(
                transcript=conversation(session),
                returned=text,
                status=status_html("Taken back; the message is in the box again"),
                panel=self._idle_panel(session),
                saved=saved_conversation(session),
            )
        )

    @streams
    def clear(self, request: gr.Request) -> Updates:
        """Begin a new conversation; the old one's state is dropped."""
        session = self._cleared(request)
        return only(
            Update(
                transcript=[],
                status=status_html("New conversation"),
                panel=self._idle_panel(session),
                saved=saved_conversation(session),
                **busy_buttons(False),
            )
        )

    def _answer(
        self,
        page: str,
        session: Session,
        index: int,
        text: str,
        controls: tuple[Any, ...],
        *,
        composer: Any = SKIP,
    ) -> Updates:
        """Answer `text` as message number `index` of the conversation."""
        if not isinstance(text, str) or not text.strip():
            return only(Update())  # an event without any value empties its outputs
        earlier, values = session.messages[:index], values_of(controls)
        return self._answerer.answer(page, session, earlier, text, values, composer=composer)


class DocumentHandlers(_Handlers):
    """The completion page of a base model: one text, which the model continues."""

    @streams
    def extend(self, text: str, request: gr.Request, *controls: Any) -> Updates:
        """Continue the text. An empty one does nothing."""
        return self._extend(request, self._session(request), text, controls)

    @streams
    def retry(self, request: gr.Request, *controls: Any) -> Updates:
        """Continue once more from where the last continuation began."""
        session = self._session(request)
        if session.document_before is None:
            return only(Update(status=status_html("Nothing to retry")))
        return self._extend(request, session, session.document_before, controls)

    @streams
    def undo(self, request: gr.Request) -> Updates:
        """Take the last continuation back."""
        session = self._session(request)
        session.refuse_if_busy()
        if session.document_before is None:
            return only(Update(status=status_html("Nothing to undo")))
        session.begin()
        session.document, session.document_before = session.document_before, None
        return only(
            Update(
                document=session.document,
                status=status_html("Taken back"),
                saved=saved_conversation(session),
            )
        )

    @streams
    def clear(self, request: gr.Request) -> Updates:
        """Begin with an empty text; the old one's state is dropped."""
        session = self._cleared(request)
        return only(
            Update(
                document="",
                status=status_html("Cleared"),
                panel=self._idle_panel(session),
                saved=saved_conversation(session),
                **busy_buttons(False),
            )
        )

    def _extend(
        self, request: gr.Request, session: Session, text: str, controls: tuple[Any, ...]
    ) -> Updates:
        if not isinstance(text, str) or not text.strip():
            return only(Update())  # an event without any value empties its outputs
        return self._answerer.extend(page_of(request), session, text, values_of(controls))


def _index(data: Any) -> int:
    """The place of the message in the conversation; Gradio adds the part's place to some."""
    index = data.index
    return int(index[0] if isinstance(index, list | tuple) else index)


def _text_of(value: Any) -> str:
    """The text in an event's value: plain, or one part of a message."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("text", value.get("value", ""))
    return typed(value) if isinstance(value, str) else ""
