"""Where a reply goes: into the session's conversation or text, and how the page then shows it.

While a reply is written the session can be brought up to date at any time, so a page that comes
back finds every word. A chat reply that ends without a word leaves the session as it was.
"""

from __future__ import annotations

import time
from typing import Any

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.conversation.browser_copy import saved_conversation
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.sessions import Remark, Session
from falcon_mamba_app.ui.conversation.tree import Facts, Node, new_node_id
from falcon_mamba_app.ui.view.messages import shown_conversation
from falcon_mamba_app.ui.view.updates import SKIP, Update, reply_status, status_html


class ChatTarget:
    """A reply after the message `asked`, beside the replies that it has already.

    `asked` may be new: then it is taken out again if nothing is answered. A reply that `continues`
    another one begins with its words; one `beside` another is shown next to it.
    """

    def __init__(
        self,
        session: Session,
        asked: Node,
        *,
        continues: Node | None = None,
        settings: str = "",
        model: str = "",
        system: str = "",
        beside: Node | None = None,
    ) -> None:
        self.reply_id = new_node_id()
        self._session, self._asked = session, asked
        self._before = session.tree.head
        self._begun = "" if continues is None else continues.message.content
        self._settings, self._model, self._system = settings, model, system
        self._reply: Node | None = None
        session.begin()
        session.tree.head = asked
        session.pair = None if beside is None else (beside.id, self.reply_id)

    def take(self, reply: Reply) -> None:
        tree = self._session.tree
        if not reply.text:
            return
        message = Message("assistant", self._begun + reply.text)
        if self._reply is None:
            self._reply = tree.add(self._asked, message, node_id=self.reply_id)
            tree.head = self._reply
        self._reply.message = message
        self._reply.facts = self._facts(reply)

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
            return Update(
                shown_conversation(self._session, until=self._asked),
                growing=self._begun + reply.text,
                status=status,
                panel=panel,
            )
        returned = self._session.take_unanswered()
        return Update(
            shown_conversation(self._session),
            growing="",
            returned=SKIP if returned is None else returned,
            status=status,
            panel=panel,
            saved=saved_conversation(self._session),
        )

    def _facts(self, reply: Reply) -> Facts:
        return Facts(
            context_tokens=reply.context_tokens,
            completion_tokens=reply.completion_tokens,
            prompt_tokens=reply.prompt_tokens,
            reused_tokens=reply.reused_tokens,
            tokens_per_s=reply.tokens_per_s,
            ttft_s=reply.ttft_s,
            is_cut_short=reply.phase != "finished" or reply.finish_reason == "length",
            settings=self._settings,
            model=self._model,
            system=self._system,
            prefill_s=reply.read_s,
            ended_s=time.time(),
            strip=reply.strip,
        )

    def _take_back(self, reply: Reply) -> None:
        """The conversation as it was; the message is returned unless it was there before."""
        session, asked = self._session, self._asked
        is_kept = bool(asked.children) or (
            self._before is not None and asked in self._before.path()
        )
        if not is_kept:
            session.tree.remove(asked)
            session.unanswered = asked.message.content
        session.tree.head, session.is_cut = self._before, False
        where = "" if is_kept else " Your message is back below."
        if reply.error:
            session.remark = Remark("Not sent", reply.error + where)
        elif reply.phase == "finished":
            session.remark = Remark("Empty reply", "The model ended its reply at once." + where)


class DocumentTarget:
    """A continuation of `text`, the completion page's."""

    def __init__(self, session: Session, text: str) -> None:
        self._session, self._text = session, text
        session.begin()
        session.document.text = text

    def take(self, reply: Reply) -> None:
        self._session.document.text = self._text + reply.text

    def end(self, reply: Reply, error: BaseException | None) -> None:
        session = self._session
        session.is_cut = session.turn is not None and session.turn.is_cut
        session.turn = None
        reply.error = None if error is None else sentence_for(error)
        if reply.error:
            session.remark = Remark("Broken off", reply.error)
        session.document.written(self._text, reply.text)

    def update(self, reply: Reply, *, panel: Any) -> Update:
        status = reply_status(reply)
        if reply.error:
            status = status_html(reply.error, phase="failed")
        saved = saved_conversation(self._session) if reply.is_over else SKIP
        return Update(document=self._session.document.text, status=status, panel=panel, saved=saved)
