"""Where a reply goes: into the session's conversation or text, and how the page then shows it.

While a reply is written the session can be brought up to date at any time, so a page that comes
back finds every word. A chat reply that ends without a word leaves the session as it was.
"""

from __future__ import annotations

from typing import Any

from gradio.components.chatbot import Message as Bubble

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.browser_copy import saved_conversation
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.sessions import Remark, Session
from falcon_mamba_app.ui.view.updates import (
    SKIP,
    Update,
    bubbles,
    notice,
    reply_status,
    status_html,
)


class ChatTarget:
    """A reply to the last of `asked`, which becomes the session's conversation."""

    def __init__(self, session: Session, asked: list[Message]) -> None:
        self._session, self._asked = session, asked
        self._before = session.messages
        self._shown = bubbles(asked)
        session.begin()
        session.messages = asked

    def take(self, reply: Reply) -> None:
        self._session.messages = [*self._asked, *_answer(reply)]
        self._session.contexts[len(self._session.messages)] = reply.context_tokens

    def end(self, reply: Reply, error: BaseException | None) -> None:
        session = self._session
        session.is_cut = session.turn is not None and session.turn.is_cut
        session.turn = None
        reply.error = None if error is None else sentence_for(error)
        if reply.text:
            self.take(reply)
            if reply.error:
                session.remark = Remark("Broken off", f"The reply broke off. {reply.error}")
        else:
            self._take_back(reply)

    def update(self, reply: Reply, *, panel: Any) -> Update:
        status = reply_status(reply)
        if not reply.is_over:
            return Update([*self._shown, *bubbles(_answer(reply))], status=status, panel=panel)
        returned = self._session.take_unanswered()
        return Update(
            conversation(self._session),
            returned=SKIP if returned is None else returned,
            status=status,
            panel=panel,
            saved=saved_conversation(self._session),
        )

    def _take_back(self, reply: Reply) -> None:
        """The conversation as it was; the message is returned unless it is in there."""
        session = self._session
        session.messages, session.is_cut = self._before, False
        is_kept = self._before[: len(self._asked)] == self._asked
        session.unanswered = None if is_kept else self._asked[-1].content
        where = "" if is_kept else " Your message is back in the box below."
        if reply.error:
            session.remark = Remark("Not sent", reply.error + where)
        elif reply.phase == "finished":
            session.remark = Remark("Empty reply", "The model ended its reply at once." + where)


class DocumentTarget:
    """A continuation of `text`, the completion page's."""

    def __init__(self, session: Session, text: str) -> None:
        self._session, self._text = session, text
        session.begin()
        session.document = session.document_before = text

    def take(self, reply: Reply) -> None:
        self._session.document = self._text + reply.text

    def end(self, reply: Reply, error: BaseException | None) -> None:
        session = self._session
        session.is_cut = session.turn is not None and session.turn.is_cut
        session.turn = None
        reply.error = None if error is None else sentence_for(error)
        if reply.error:
            session.remark = Remark("Broken off", reply.error)
        self.take(reply)

    def update(self, reply: Reply, *, panel: Any) -> Update:
        status = reply_status(reply)
        if reply.error:
            status = status_html(reply.error, phase="failed")
        saved = saved_conversation(self._session) if reply.is_over else SKIP
        return Update(document=self._session.document, status=status, panel=panel, saved=saved)


def conversation(session: Session) -> list[Bubble]:
    """All that the chat shows of a session."""
    shown = bubbles(session.messages)
    if session.remark is not None:
        shown.append(notice(session.remark.sentence, title=session.remark.title))
    return shown


def _answer(reply: Reply) -> list[Message]:
    return [Message("assistant", reply.text)] if reply.text else []
