"""Trees as text: whole in our own JSON; as OpenAI's messages and as Markdown along one path."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from falcon_mamba_app.library.tree import Tree

FORMAT = "falcon-mamba conversation"
VERSION = 1
NAMES = {"user": "You", "assistant": "Falcon Mamba", "system": "System"}


def as_json(tree: Tree) -> str:
    """The whole tree, ids of tokens included; `reading` makes the same tree of it."""
    return json.dumps(as_data(tree), ensure_ascii=False, allow_nan=False)


def as_data(tree: Tree) -> dict[str, Any]:
    """The same as JSON data. The owner and the version stay here."""
    conversation = asdict(tree.conversation)
    for name in ("owner", "version"):
        del conversation[name]
    messages = []
    for message in tree.messages:
        known = {name: value for name, value in asdict(message).items() if value not in (None, {})}
        for name in ("conversation_id", "generation"):
            known.pop(name, None)
        if message.token_ids is not None:
            known["token_ids"] = base64.b64encode(message.token_ids).decode()
        messages.append(known)
    return {
        "format": FORMAT,
        "version": VERSION,
        "conversation": conversation,
        "messages": messages,
        "branches": [asdict(branch) for branch in tree.branches],
    }


def as_jsonl(trees: Iterable[Tree]) -> str:
    """One line a conversation, as OpenAI's fine-tuning takes it: the path to the head."""
    lines = []
    for tree in trees:
        prompt = tree.conversation.system_prompt
        messages = [{"role": "system", "content": prompt}] if prompt else []
        messages += [{"role": one.role, "content": one.text} for one in tree.path()]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return "".join(lines)


def as_markdown(tree: Tree) -> str:
    """The path to the head, to be read."""
    title = tree.conversation.title or "Conversation"
    parts = [f"# {title}"]
    if tree.conversation.system_prompt:
        parts.append(f"> {tree.conversation.system_prompt}".replace("\n", "\n> "))
    for message in tree.path():
        parts += [f"**{NAMES[message.role]}**", message.text]
    return "\n\n".join(parts) + "\n"
