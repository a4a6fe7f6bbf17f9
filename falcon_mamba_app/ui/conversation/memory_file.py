"""A conversation and its memory as one file, which another server with the same model can open.

The file is the state's own (safetensors), with all branches of the conversation in its header: a
program that reads states reads it too. It comes from outside, so all of it is checked. This module
knows nothing of the state but where its header ends.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.sound_facts import facts_in
from falcon_mamba_app.ui.conversation.tree import Facts, Node, Tree, new_node_id

KEY = "conversation"
FORMAT = 1
LENGTH_BYTES = 8  # of the header's own length, before it
ALIGNMENT = 8
MAX_HEADER_BYTES = 6 * 2**20  # the state's reader accepts 8
MAX_MESSAGES = 10_000
MAX_NAME_CHARS = 60
NOT_OURS = "this file is no saved conversation"


def with_conversation(state: bytes, tree: Tree, head: Node | None = None) -> bytes:
    """The state's file with the conversation in it, which goes on from `head`, or from where it is
    now. Raises InvalidRequest if that is too long.
    """
    header, tensors = _parts(state)
    metadata = header.setdefault("__metadata__", {})
    places = {node.id: place for place, node in enumerate(tree)}
    head = head or tree.head
    kept = {
        "format": FORMAT,
        "head": None if head is None else places[head.id],
        "messages": [_kept(node, places) for node in tree],
    }
    metadata[KEY] = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    packed = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    if len(packed) > MAX_HEADER_BYTES:
        raise InvalidRequest(
            f"this conversation takes {len(packed):,} bytes as text; a file holds at most"
            f" {MAX_HEADER_BYTES:,}"
        )
    packed += b" " * (-len(packed) % ALIGNMENT)
    return len(packed).to_bytes(LENGTH_BYTES, "little") + packed + tensors


def is_saved_state(data: bytes) -> bool:
    """Whether it looks like a file of `with_conversation`, and not like an export."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    return data[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and LENGTH_BYTES + length <= len(data)


def conversation_of(data: bytes, *, max_chars: int) -> Tree:
    """The conversation in a file, with new ids. Raises InvalidRequest naming the first fault."""
    header, _ = _parts(data)
    metadata = header.get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise InvalidRequest(
            "this file holds a state without its conversation; the API can open it"
            " (PUT /v1/sessions/{key}/state)"
        )
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the conversation in this file is damaged") from error
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise InvalidRequest("the conversation in this file is of a kind that is not known here")
    return _tree(kept.get("messages"), kept.get("head"), max_chars)


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and what follows it."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    end = LENGTH_BYTES + length
    if len(data) < LENGTH_BYTES or length > MAX_HEADER_BYTES or end > len(data):
        raise InvalidRequest(NOT_OURS)
    try:
        header = json.loads(data[LENGTH_BYTES:end])
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(NOT_OURS) from error
    if not isinstance(header, dict):
        raise InvalidRequest(NOT_OURS)
    return header, data[end:]


def _kept(node: Node, places: dict[str, int]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "parent": None if node.parent is None else places[node.parent.id],
        "role": node.message.role,
        "text": node.message.content,
    }
    if node.name:
        kept["name"] = node.name
    if node.facts is not None:
        known = {field.name: getattr(node.facts, field.name) for field in fields(Facts)}
        kept["facts"] = {name: value for name, value in known.items() if value is not None}
    return kept


def _tree(messages: Any, head: Any, max_chars: int) -> Tree:
    """The messages as a tree; each stands behind the one that it follows."""
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise InvalidRequest(f"this file must have 1 to {MAX_MESSAGES:,} messages")
    tree = Tree()
    nodes: list[Node] = []
    for place, kept in enumerate(messages):
        match kept:
            case {
                "parent": None | int() as at,
                "role": "user" | "assistant" as role,
                "text": str(text),
            } if not isinstance(at, bool) and (at is None or 0 <= at < place):
                if len(text) > max_chars:
                    raise InvalidRequest(
                        f"message {place + 1} in this file has {len(text):,} characters; this"
                        f" page accepts at most {max_chars:,}"
                    )
                parent = None if at is None else nodes[at]
            case _:
                raise InvalidRequest(f"message {place + 1} in this file is damaged")
        if role != (
            "assistant" if parent is not None and parent.message.role == "user" else "user"
        ):
            raise InvalidRequest(f"message {place + 1} in this file is out of turn")
        node = tree.add(parent, Message(role, text), node_id=new_node_id())
        node.name = kept["name"][:MAX_NAME_CHARS] if isinstance(kept.get("name"), str) else ""
        node.facts = facts_in(kept.get("facts")) if role == "assistant" else None
        nodes.append(node)
    if not isinstance(head, int) or isinstance(head, bool) or not 0 <= head < len(nodes):
        raise InvalidRequest("this file does not say where its conversation ends")
    tree.head = nodes[head]
    return tree
