"""Trees out of what a file says: checked, in order, without circles.

Every function is of the size of its input, and none calls itself: files may be deeper than Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library.tree import (
    BranchRecord,
    ConversationRecord,
    MessageRecord,
    Role,
    Tree,
)

MAX_MESSAGES = 100_000  # of one file
MAX_MESSAGE_CHARS = 2_000_000
MAX_TITLE_CHARS = 60
MAX_SECONDS = 253_402_300_800.0  # the year 10,000
ROLES: dict[object, Role] = {
    **dict.fromkeys(("user", "human", "User", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing"), "assistant"),
    "system": "system",
}


@dataclass(slots=True)
class Draft:
    """One message as a file has it. A node without a role or words only joins others."""

    id: str
    parent_id: str | None
    role: Role | None
    text: str
    created_s: float = 0.0
    known: dict[str, object] = field(default_factory=dict)  # other fields of MessageRecord


def tree_of(
    drafts: Iterable[Draft],
    *,
    title: str = "",
    head_id: str | None = None,
    created_s: float = 0.0,
    updated_s: float = 0.0,
    record: ConversationRecord | None = None,
    branches: Iterable[BranchRecord] = (),
) -> Tree:
    """A tree, parents first. A system message that begins it becomes its system prompt; a head that
    is not there becomes the newest message. Raises InvalidRequest.
    """
    nodes = _by_id(drafts)
    ordered = _parents_first(nodes)
    kept: dict[str, str | None] = {}  # each node's own id, or that of the message it stands for
    messages: list[MessageRecord] = []
    system_prompt = ""
    for node in ordered:
        above = None if node.parent_id is None else kept.get(node.parent_id)
        if node.role == "system" and above is None and not messages:
            system_prompt = node.text
        if node.role is None or node.role == "system" or not node.text:
            kept[node.id] = above
            continue
        kept[node.id] = node.id
        messages.append(
            MessageRecord(
                id=node.id,
                conversation_id="",
                parent_id=above,
                role=node.role,
                text=node.text,
                created_s=node.created_s,
                **node.known,  # type: ignore[arg-type]
            )
        )
    head = kept.get(head_id) if head_id is not None else None
    if head is None and messages:
        head = messages[-1].id
    base = record or ConversationRecord(
        id="",
        owner="",
        title=title or _beginning(messages),
        system_prompt=system_prompt,
        created_s=created_s,
        updated_s=updated_s or created_s,
    )
    there = {message.id for message in messages}
    named = tuple(one for one in branches if one.message_id in there)
    return Tree(replace(base, head_id=head), tuple(messages), named)


def _beginning(messages: list[MessageRecord]) -> str:
    """A title for a file without one: the first words, on one line."""
    words = " ".join(messages[0].text[:200].split()) if messages else ""
    return words if len(words) <= MAX_TITLE_CHARS else words[: MAX_TITLE_CHARS - 1].rstrip() + "…"


def row_of(pairs: Iterable[tuple[Role | None, str]]) -> list[Draft]:
    """Messages that follow each other."""
    drafts: list[Draft] = []
    for number, (role, text) in enumerate(pairs):
        drafts.append(Draft(str(number), str(number - 1) if number else None, role, text))
    return drafts


def text_of(value: object) -> str:
    """The words in a content: a text, or a list of parts of which texts are taken."""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        value = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    if len(value) > MAX_MESSAGE_CHARS:
        raise InvalidRequest(
            f"a message has {len(value):,} characters; allowed are {MAX_MESSAGE_CHARS:,}"
        )
    return value


def seconds(value: object) -> float:
    """A time since 1970; 0 where the file says none. Milliseconds are told by their size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        given = float(value)
    except OverflowError:
        return 0.0
    if not math.isfinite(given) or given < 0:
        return 0.0
    given = given / 1_000 if given > 1e11 else given
    return given if given < MAX_SECONDS else 0.0


def _by_id(drafts: Iterable[Draft]) -> dict[str, Draft]:
    nodes: dict[str, Draft] = {}
    for draft in drafts:
        if draft.id in nodes:
            raise InvalidRequest(f"two messages of the file have the id {draft.id[:40]!r}")
        nodes[draft.id] = draft
        if len(nodes) > MAX_MESSAGES:
            raise InvalidRequest(f"the file has more than {MAX_MESSAGES:,} messages")
    return nodes


def _parents_first(nodes: dict[str, Draft]) -> list[Draft]:
    """All nodes; one whose parent is not in the file begins the conversation."""
    below: dict[str | None, list[Draft]] = {}
    for node in nodes.values():
        parent_id = node.parent_id if node.parent_id in nodes else None
        below.setdefault(parent_id, []).append(node)
    ordered: list[Draft] = list(below.get(None, ()))
    for node in ordered:  # grows while it is walked
        ordered.extend(below.get(node.id, ()))
    if len(ordered) < len(nodes):
        num = len(nodes) - len(ordered)
        raise InvalidRequest(f"{num:,} messages of the file follow each other in a circle")
    return ordered
