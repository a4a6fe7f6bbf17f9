"""A conversation as the page draws it: plain values, which assets/conversation.js turns into nodes.

Texts stay texts on their whole way: nothing here or there is ever parsed as HTML.
"""

from __future__ import annotations

from typing import Any

from falcon_mamba_app.ui.conversation.sessions import Session
from falcon_mamba_app.ui.conversation.tree import Facts, Node

Shown = list[dict[str, Any]]


def shown_conversation(session: Session, *, until: Node | None = None) -> Shown:
    """The branch that is shown, at most to the message `until`, and a remark at its end."""
    tree = session.tree
    path = tree.path if until is None else until.path()
    shown = [_shown(session, node) for node in path]
    if session.pair is not None and path:
        _pair(session, shown, path[-1])
    later = 0 if tree.head is None or until is not None else len(tree.head.children)
    if shown and later:
        shown[-1]["later"] = later
        shown[-1]["next"] = tree.head.children[-1].id if tree.head else None
    if session.remark is not None and until is None:
        remark = session.remark
        shown.append({"role": "notice", "title": remark.title, "text": remark.sentence})
    return shown


def _pair(session: Session, shown: Shown, last: Node) -> None:
    """Put two replies side by side at the end, or the first one while the second is written."""
    assert session.pair is not None
    first, second = map(session.tree.node, session.pair)
    if first is None or first.parent not in (last, last.parent):
        return
    if last in (first, second):
        shown.pop()
    elif first.parent is not last:
        return
    is_written = second is not None and last in (first, second)
    pair = [first, second] if is_written and second is not None else [first]
    for node in pair:
        shown.append({**_shown(session, node), "pair": "picked" if node is last else "other"})


def _shown(session: Session, node: Node) -> dict[str, Any]:
    place, count = session.tree.place_of(node)
    message: dict[str, Any] = {
        "id": node.id,
        "role": node.message.role,
        "text": node.message.content,
    }
    if count > 1:
        siblings = session.tree.branches_after(node.parent)
        message |= {"place": place, "branches": [sibling.id for sibling in siblings]}
    if node.name:
        message["name"] = node.name
    if node.facts is not None:
        message |= _facts(node.facts)
    return message


def _facts(facts: Facts) -> dict[str, Any]:
    shown: dict[str, Any] = {"line": line_of(facts), "short": facts.is_cut_short}
    details = [facts.model, facts.settings]
    shown["details"] = " · ".join(detail for detail in details if detail)
    if facts.ended_s is not None:
        shown["at"] = round(facts.ended_s)
    if facts.strip is not None:
        shown["strip"] = facts.strip
    if facts.context_tokens is not None:
        shown["tokens"] = facts.context_tokens
    return shown


def line_of(facts: Facts) -> str:
    """What a reply took: "27 tokens · 37 tok/s · read 24 new, 27,677 remembered"."""
    parts = []
    if facts.completion_tokens:
        parts.append(f"{facts.completion_tokens:,} token{'s' * (facts.completion_tokens > 1)}")
    if facts.tokens_per_s:
        parts.append(f"{facts.tokens_per_s:.0f} tok/s")
    if facts.prompt_tokens is not None and facts.reused_tokens is not None:
        new = f"read {facts.prompt_tokens - facts.reused_tokens:,} new"
        remembered = f", {facts.reused_tokens:,} remembered" if facts.reused_tokens else ""
        parts.append(new + remembered)
    return " · ".join(parts)
