"""What a visitor does to one message of the conversation: edit, answer again, go back, and so on.

The page names a message by its id in the session's tree. Nothing here takes words away: an edit and
a new reply are branches beside the old ones, and what is deleted can be put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from falcon_mamba_app.protocol import GenerationService, Message
from falcon_mamba_app.ui.conversation.sessions import Session, Sessions
from falcon_mamba_app.ui.conversation.tree import Node, new_node_id
from falcon_mamba_app.ui.events.answering import Answerer, only
from falcon_mamba_app.ui.events.chat_and_document import (
    Updates,
    claim,
    moved,
    page_of,
    streams,
)
from falcon_mamba_app.ui.view.controls import ControlValues, values_of
from falcon_mamba_app.ui.view.updates import Update, status_html

MAX_NAME_CHARS = 60
GONE = "This message is no longer in the conversation"

Action = Callable[[str, Session, Node, str, ControlValues], Updates]


class MessageActions:
    """One event of the page, whose `op` says what to do."""

    def __init__(self, service: GenerationService, sessions: Sessions, answerer: Answerer) -> None:
        self._service, self.sessions, self._answerer = service, sessions, answerer
        self._actions: dict[str, Action] = {
            "edit": self._edit,
            "retry": self._retry,
            "continue": self._continue,
            "instead": self._instead,
            "show": self._show,
            "back": self._back,
            "branch": self._branch,
            "name": self._name,
            "delete": self._delete,
            "restore": self._restore,
        }

    @streams
    def act(self, data: gr.EventData, request: gr.Request, *controls: Any) -> Updates:
        """Carry the action out on the message that it names."""
        page = page_of(request)
        session = self.sessions.known(page)
        claim(self.sessions, session, request)
        session.refuse_if_busy()
        asked: dict[str, Any] = data._data if isinstance(data._data, dict) else {}
        action, text = self._actions.get(str(asked.get("op"))), asked.get("text")
        node = session.tree.node(asked.get("id")) or session.removed_node(asked.get("id"))
        if action is None or node is None:
            return only(Update(status=status_html(GONE, phase="failed")))
        values = values_of(controls)
        return action(page, session, node, text if isinstance(text, str) else "", values)

    def _edit(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        """Say the message differently: a branch beside it. A user's is answered, the model's own
        words are simply others from now on.
        """
        if not text.strip() or text == node.message.content:
            return only()
        if node.message.role == "user":
            return self._answerer.answer(page, session, node.parent, text, values)
        session.begin()
        session.tree.head = session.tree.add(node.parent, Message("assistant", text))
        return only(self._moved(session, "Edited; the reply before is one branch to the left"))

    def _retry(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        asked = node if node.message.role == "user" else node.parent
        if asked is None:
            return only(Update(status=status_html(GONE, phase="failed")))
        return self._answerer.again(page, session, asked, values)

    def _continue(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        if node.message.role != "assistant" or node.parent is None:
            return only(Update(status=status_html("Only a reply can be continued")))
        return self._answerer.go_on(page, session, node, values)

    def _instead(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        """A branch beside this reply that begins with the text: with other words from some place
        on.
        """
        if node.message.role != "assistant" or node.parent is None or not text.strip():
            return only(Update(status=status_html("Only a reply can be continued")))
        begun = Node(new_node_id(), Message("assistant", text), node.parent)
        return self._answerer.go_on(page, session, begun, values)

    def _show(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        """Show the branch of this message, to its newest end."""
        session.begin()
        session.tree.head = node.newest_leaf()
        place, count = session.tree.place_of(node)
        return only(self._moved(session, f"Branch {place} of {count}"))

    def _back(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        """Let the conversation stand here again; what followed stays as a branch."""
        session.begin()
        session.tree.head = node
        return only(self._moved(session, "Back here, 0 tokens read; what followed is kept"))

    def _branch(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        """As `back`, and the next message of the visitor is offered to be said differently."""
        session.begin()
        later = [each for each in node.children if each.message.role == "user"]
        session.tree.head = node
        shown = self._moved(session, "Say it differently: what followed is kept as a branch")
        return only(shown._replace(returned=later[-1].message.content) if later else shown)

    def _name(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        node.name = " ".join(text.split())[:MAX_NAME_CHARS]
        return only(self._moved(session, "Named" if node.name else "The name is taken away"))

    def _delete(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        session.begin()
        session.remove(node)
        return only(self._moved(session, "Deleted, with what followed"))

    def _restore(
        self, page: str, session: Session, node: Node, text: str, values: ControlValues
    ) -> Updates:
        if not session.put_back(node):
            return only(Update(status=status_html(GONE, phase="failed")))
        return only(self._moved(session, "It is back"))

    def _moved(self, session: Session, status: str) -> Update:
        return moved(self._service, session, status)
