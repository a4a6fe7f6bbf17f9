"""The page's events as async functions: which session, which messages, then what to show.

The server's session is authoritative; a page sends a new text and its controls, never the history.
While a reply is being written, whatever would start another or change the past is refused: Busy.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

from falcon_mamba_app.errors import FalconMambaError, origin_of
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.browser_copy import saved_conversation
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.sessions import Lost, Session, Sessions
from falcon_mamba_app.ui.conversation.tree import Node
from falcon_mamba_app.ui.events.answering import Answerer, only
from falcon_mamba_app.ui.view.controls import values_of
from falcon_mamba_app.ui.view.messages import shown_conversation
from falcon_mamba_app.ui.view.panel import Figures, shown_panel
from falcon_mamba_app.ui.view.updates import Update, busy_html, status_html
from falcon_mamba_app.visitors import Visitor, visitor_in

logger = logging.getLogger(__name__)

UNFORESEEN = "Something failed here that nobody foresaw. What was said is kept: reload the page"
Updates = AsyncGenerator[Update, None]
P = ParamSpec("P")


def page_of(request: gr.Request) -> str:
    """The tab's or client's own hash."""
    assert request.session_hash is not None, "Gradio gives every call a session hash"
    return request.session_hash


def visitor_of(request: gr.Request) -> Visitor:
    """Whom the limits count the call for."""
    return visitor_in(request.state)


def claim(sessions: Sessions, session: Session, request: gr.Request) -> None:
    """Count the session for the caller, and keep its conversation if the caller is an owner."""
    sessions.claim(session, visitor_of(request), sessions.kept.owner_of(request))


def streams(handler: Callable[P, Updates]) -> Callable[P, Updates]:
    """An event function that yields a handler's updates, and closes them when it is closed.

    Gradio sends the last update again when the event ends, which may be long after: the page may
    show something newer by then. So the last one changes nothing.
    """

    @wraps(handler)
    async def stream(*args: P.args, **kwargs: P.kwargs) -> Updates:
        try:
            async with aclosing(handler(*args, **kwargs)) as updates:
                async for update in updates:
                    yield update
            await _save(*args)
        except Lost as error:  # assets/page.js opens the page again
            yield Update(status=status_html(str(error), phase="lost"))
        except FalconMambaError as error:
            yield Update(status=status_html(sentence_for(error), phase="failed"))
        except Exception as error:
            logger.error("an event failed: unexpected %s", origin_of(error))
            yield Update(status=status_html(UNFORESEEN, phase="failed"), busy=busy_html(False))
        yield Update()

    return stream


async def _save(handlers: Any, *args: Any) -> None:
    """Write what the event has made of the page's conversation, if it is kept."""
    for request in args:
        if isinstance(request, gr.Request):
            await handlers.sessions.save(page_of(request))


class _Handlers:
    """What the chat's and the completion page's events share."""

    def __init__(self, service: GenerationService, sessions: Sessions, answerer: Answerer) -> None:
        self._service = service
        self.sessions = sessions
        self._answerer = answerer

    def _session(self, request: gr.Request) -> Session:
        session = self.sessions.known(page_of(request))
        claim(self.sessions, session, request)
        return session

    async def stop(self, request: gr.Request) -> None:
        """End the reply being written. Whoever watches it shows what is kept."""
        with suppress(Lost):
            turn = self._session(request).turn
            if turn is not None:
                turn.stop()

    def _cleared(self, request: gr.Request) -> Session:
        self._session(request)
        return self.sessions.clear(page_of(request))


class ChatHandlers(_Handlers):
    """The chat's box and buttons: send, retry, undo, clear. `message_actions` has what is done to
    one message.
    """

    @streams
    def send(self, text: str, request: gr.Request, *controls: Any) -> Updates:
        """Answer a new message. A blank one does nothing."""
        page, session = page_of(request), self._session(request)
        if not isinstance(text, str) or not text.strip():
            return only()
        values = values_of(controls)
        return self._answerer.answer(page, session, session.tree.head, text, values, composer="")

    @streams
    def retry(self, request: gr.Request, *controls: Any) -> Updates:
        """Answer the last message once more, beside the reply it got."""
        session = self._session(request)
        asked = last_asked(session)
        if asked is None:
            return only(Update(status=status_html("Nothing to retry")))
        return self._answerer.again(page_of(request), session, asked, values_of(controls))

    @streams
    def undo(self, request: gr.Request) -> Updates:
        """Take the last exchange back; the user's text returns to the composer. The exchange stays
        in the tree as a branch.
        """
        session = self._session(request)
        session.refuse_if_busy()
        asked = last_asked(session)
        if asked is None:
            return only(Update(status=status_html("Nothing to undo")))
        session.begin()
        session.tree.head = asked.parent
        shown = moved(self._service, session, "Taken back; the message is in the box again")
        return only(shown._replace(returned=asked.message.content))

    @streams
    def clear(self, request: gr.Request) -> Updates:
        """Begin a new conversation."""
        session = self._cleared(request)
        return only(moved(self._service, session, "New conversation", busy=busy_html(False)))


def last_asked(session: Session) -> Node | None:
    """The user's last message in the branch that is shown."""
    asked = [node for node in session.tree.path if node.message.role == "user"]
    return asked[-1] if asked else None


def moved(service: GenerationService, session: Session, status: str, **others: Any) -> Update:
    """The page after its conversation stands at another place of its tree."""
    return Update(
        transcript=shown_conversation(session),
        growing="",
        status=status_html(status),
        panel=shown_panel(Figures.at_rest(service.stats(), session)),
        saved=saved_conversation(session),
        **others,
    )


class DocumentHandlers(_Handlers):
    """The notebook: one text, which the model continues."""

    @streams
    def extend(self, text: str, request: gr.Request, *controls: Any) -> Updates:
        """Continue the text. An empty one does nothing."""
        session = self._session(request)
        if not isinstance(text, str) or not text.strip():
            return only()
        return self._answerer.extend(page_of(request), session, text, values_of(controls))

    @streams
    def retry(self, text: str, request: gr.Request, *controls: Any) -> Updates:
        """Take the last continuation out of the text as it stands, and write another."""
        session = self._session(request)
        session.refuse_if_busy()
        before = session.document.taken_back(text or "")
        if before is None:
            return only(Update(status=status_html("Nothing to retry")))
        return self._answerer.extend(page_of(request), session, before, values_of(controls))

    @streams
    def undo(self, text: str, request: gr.Request) -> Updates:
        """Take the newest continuation out of the text as it stands; what was typed stays."""
        session = self._session(request)
        session.refuse_if_busy()
        before = session.document.taken_back(text or "")
        if before is None:
            return only(Update(status=status_html("Nothing to undo: all of this text is yours")))
        session.begin()
        return only(
            Update(
                document=before,
                status=status_html("Taken back"),
                saved=saved_conversation(session),
            )
        )

    @streams
    def clear(self, request: gr.Request) -> Updates:
        """Begin with an empty text; a chat that stands beside it stays."""
        session = self._session(request)
        if len(session.tree):
            session.refuse_if_busy()
            session.document = Document()
        else:
            session = self._cleared(request)
        return only(
            Update(
                document="",
                status=status_html("Cleared"),
                panel=shown_panel(Figures.at_rest(self._service.stats(), session)),
                saved=saved_conversation(session),
                busy=busy_html(False),
            )
        )
