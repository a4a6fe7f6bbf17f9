"""The copy of a conversation in the visitor's browser: saved, and restored.

The server's own session has priority while it exists. The copy is for the time after a restart, or
for a visitor who returns after the session was freed. It comes from outside, so all of it is
checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.document import Document
from falcon_mamba_app.ui.conversation.sessions import Session
from falcon_mamba_app.ui.conversation.tree import Tree

# What a browser is asked to keep, and the most that is taken back from one; it has about 5 MB.
MAX_SAVED_CHARS = 1_000_000
MAX_SAVED_MESSAGES = 10_000


def saved_conversation(session: Session) -> str:
    """The session's id, and its texts if they fit and the library does not have them. A user's
    message at the end has no reply yet.

    As text: of two objects that one event sends, Gradio's page notices only the first.
    """
    is_kept = session.shelf is not None and not session.shelf.has_failed
    shown = [] if is_kept else session.messages
    texts = [[message.role, message.content] for message in shown]
    text = "" if is_kept else session.document.text
    document = text if len(text) <= MAX_SAVED_CHARS else ""
    copy = {
        "id": session.id,
        "messages": texts if _fit(shown) else [],
        "document": document,
        "now": _now(session),
    }
    return json.dumps(copy, ensure_ascii=False, separators=(",", ":"))


def _now(session: Session) -> str:
    """Another text whenever something else is shown: other tabs of the browser hear of it then,
    also where the library keeps the words.
    """
    head = session.tree.head
    at = "" if head is None else f"{head.id} {len(head.message.content)}"
    writing = "" if session.turn is None else " writing"
    return f"{len(session.tree)} {at}{writing} {len(session.document.text)}"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The valid part of a browser's copy."""

    session_id: str | None = None
    messages: tuple[Message, ...] = ()  # user and assistant by turns
    document: str = ""

    def restore(self, session: Session) -> None:
        """Begin the session with it. A message at the end without a reply becomes `unanswered`."""
        messages = list(self.messages)
        if messages and messages[-1].role == "user":
            session.unanswered = messages.pop().content
        session.tree, session.document = Tree(messages), Document(self.document)


def remembered(saved: object) -> Remembered:
    """Read the result of `saved_conversation`; a browser may send anything instead."""
    copy = _json(saved)
    if not isinstance(copy, dict):
        return Remembered()
    session_id, document = copy.get("id"), copy.get("document")
    if not isinstance(document, str) or len(document) > MAX_SAVED_CHARS:
        document = ""
    session_id = session_id if isinstance(session_id, str) else None
    return Remembered(session_id, _messages(copy.get("messages")), document)


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _messages(texts: object) -> tuple[Message, ...]:
    """The valid messages at the beginning; none if there are more than are ever saved."""
    messages: list[Message] = []
    for entry in texts if isinstance(texts, list) else []:
        expected = "user" if len(messages) % 2 == 0 else "assistant"
        match entry:
            case [role, str(content)] if role == expected and len(messages) <= MAX_SAVED_MESSAGES:
                messages.append(Message(expected, content))  # type: ignore[arg-type]
            case _:
                break
    return tuple(messages) if _fit(messages) else ()


def _fit(messages: Sequence[Message]) -> bool:
    """Whether a browser has room for them."""
    num_chars = sum(len(message.content) for message in messages)
    return len(messages) <= MAX_SAVED_MESSAGES and num_chars <= MAX_SAVED_CHARS


@dataclass(frozen=True, slots=True)
class Drafts:
    """The contents of the page's text fields when it was left, kept by its tab for a reload.

    `is_busy`: the document was being continued, so the server has the newer text.
    """

    composer: str = ""
    document: str = ""
    is_busy: bool = False


def parse_drafts(text: object) -> Drafts:
    """The drafts as assets/page.js wrote them; empty ones for anything else."""
    match _json(text):
        case {"composer": str(composer), "document": str(document), "busy": bool(is_busy)}:
            is_too_long = len(composer) + len(document) > MAX_SAVED_CHARS
            return Drafts() if is_too_long else Drafts(composer, document, is_busy)
        case _:
            return Drafts()
