"""Conversations out of a file: our own JSON or zip, OpenAI's messages as JSON or JSONL, ShareGPT,
Open WebUI's and ChatGPT's exports; the last two and ours with all branches.

What kind a file is, it says itself. What no conversation can be made of raises InvalidRequest.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library.exchange.archive import TREE, unbundle
from falcon_mamba_app.library.exchange.drafts import (
    MAX_MESSAGES,
    ROLES,
    Draft,
    row_of,
    seconds,
    text_of,
    tree_of,
)
from falcon_mamba_app.library.exchange.writing import FORMAT, VERSION
from falcon_mamba_app.library.rows import storable
from falcon_mamba_app.library.tree import BranchRecord, ConversationRecord, MessageRecord, Tree
from falcon_mamba_app.protocol import sampling_field_names

MAX_BYTES = 256 * 2**20
MAX_CONVERSATIONS = 20_000
KINDS = (
    "this app's JSON or zip, OpenAI messages as JSON or JSONL, ShareGPT, Open WebUI, or ChatGPT's"
    " conversations.json"
)
STATUSES = ("complete", "stopped", "failed", "interrupted")
TEXTS = {"model", "finish_reason"}
# Without `num_ids` nobody feeds the file's token ids to a model; in `response` are the names that
# the messages had where the file was written.
NOT_TAKEN = {"num_ids", "response"}
COUNTS = {"num_tokens", "context_tokens"}
TIMES = {"ttft_s", "duration_s", "tokens_per_s"}


def read(data: bytes) -> tuple[list[Tree], dict[str, bytes]]:
    """All conversations of a file, and the states that come with it, by name."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the file has {len(data):,} bytes; allowed are {MAX_BYTES:,}")
    states: dict[str, bytes] = {}
    if data[:4] == b"PK\x03\x04":
        data, states = unbundle(data, wanted=(TREE, "conversations.json"))
    entries = _entries(data)
    if not entries or len(entries) > MAX_CONVERSATIONS:
        raise InvalidRequest(
            f"the file has {len(entries):,} conversations; allowed are 1 to {MAX_CONVERSATIONS:,}"
        )
    trees: list[Tree] = []
    num_messages = 0
    for number, entry in enumerate(entries, start=1):
        try:
            tree = _tree(entry)
        except InvalidRequest as error:
            raise InvalidRequest(f"conversation {number} of the file: {error}") from None
        num_messages += len(tree.messages)
        if num_messages > MAX_MESSAGES:
            raise InvalidRequest(f"the file has more than {MAX_MESSAGES:,} messages")
        trees.append(tree)
    return trees, states


def _entries(data: bytes) -> list[Any]:
    """The file's conversations as JSON data."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(f"the file is no text in UTF-8; it may be {KINDS}") from None
    try:
        try:
            whole = _json(text)
        except json.JSONDecodeError:
            whole = [_json(line) for line in text.split("\n") if line.strip()]
    except RecursionError:
        raise InvalidRequest("the file is nested too deep") from None
    except ValueError as error:
        raise InvalidRequest(f"the file is no JSON ({error}); it may be {KINDS}") from None
    if isinstance(whole, list):
        return [whole] if _is_row(whole) else whole
    return [whole]


def _json(text: str) -> Any:
    """The text's value, with null for what is no finite number: no database keeps that in JSON."""
    return json.loads(text, parse_constant=lambda name: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _is_row(whole: list[Any]) -> bool:
    """Whether the list is itself one conversation: messages with roles."""
    return bool(whole) and all(isinstance(one, dict) and "role" in one for one in whole)


def _tree(entry: Any) -> Tree:
    match entry:
        case {"format": str(kind)} if kind == FORMAT:
            return _ours(entry)
        case {"mapping": dict(mapping)}:
            return _chatgpt(entry, mapping)
        case {"chat": {"history": {"messages": dict(messages)}}}:
            return _open_webui(entry, entry["chat"], messages)
        case {"chat": {"messages": list(messages)}}:
            return _row(messages, title=_title(entry) or _title(entry["chat"]))
        case {"conversations": list(messages)}:
            return _row(messages, title=_title(entry), system=entry.get("system"))
        case {"messages": list(messages)}:
            return _row(messages, title=_title(entry))
        case list(messages):
            return _row(messages)
        case _:
            raise InvalidRequest(f"it is of no known kind; it may be {KINDS}")


def _row(messages: list[Any], *, title: str = "", system: object = None) -> Tree:
    """OpenAI's messages (role, content) or ShareGPT's (from, value)."""
    pairs = [("system", text_of(system))] if isinstance(system, str) and system else []
    for one in messages:
        if not isinstance(one, dict):
            raise InvalidRequest(f"a message is {type(one).__name__}, and no object")
        role = one.get("role", one.get("from"))
        if not isinstance(role, str):
            raise InvalidRequest("a message has no role")
        pairs.append((role, text_of(one.get("content", one.get("value")))))
    tree = tree_of(row_of((ROLES.get(role), text) for role, text in pairs), title=title)
    return _not_empty(tree)


def _chatgpt(entry: dict[str, Any], mapping: dict[str, Any]) -> Tree:
    drafts = []
    for name, node in mapping.items():
        if not isinstance(node, dict):
            raise InvalidRequest("a node of its mapping is no object")
        message = node.get("message")
        role, text, created = None, "", 0.0
        if isinstance(message, dict):
            author, content = message.get("author"), message.get("content")
            given = author.get("role") if isinstance(author, dict) else None
            role = ROLES.get(given) if isinstance(given, str) else None
            text = text_of(content.get("parts") if isinstance(content, dict) else content)
            created = seconds(message.get("create_time"))
        drafts.append(Draft(name, _name(node.get("parent")), role, text, created))
    return _not_empty(
        tree_of(
            drafts,
            title=_title(entry),
            head_id=_name(entry.get("current_node")),
            created_s=seconds(entry.get("create_time")),
            updated_s=seconds(entry.get("update_time")),
        )
    )


def _open_webui(entry: dict[str, Any], chat: dict[str, Any], messages: dict[str, Any]) -> Tree:
    drafts = []
    for name, one in messages.items():
        if not isinstance(one, dict):
            raise InvalidRequest("a message of its history is no object")
        role = one.get("role")
        drafts.append(
            Draft(
                name,
                _name(one.get("parentId")),
                ROLES.get(role) if isinstance(role, str) else None,
                text_of(one.get("content")),
                seconds(one.get("timestamp")),
            )
        )
    system = text_of(chat.get("system"))
    first = [Draft("the system prompt", None, "system", system)] if system else []
    return _not_empty(
        tree_of(
            [*first, *drafts],
            title=_title(entry) or _title(chat),
            head_id=_name(chat["history"].get("currentId")),
            created_s=seconds(entry.get("created_at")) or seconds(chat.get("timestamp")),
            updated_s=seconds(entry.get("updated_at")),
        )
    )


def _ours(entry: dict[str, Any]) -> Tree:
    if entry.get("version") != VERSION:
        raise InvalidRequest(
            f"it has version {entry.get('version')!r}; this app reads version {VERSION}"
        )
    about, messages, branches = (entry.get(x) for x in ("conversation", "messages", "branches"))
    if not (isinstance(about, dict) and isinstance(messages, list) and isinstance(branches, list)):
        raise InvalidRequest("conversation, messages or branches are missing")
    record = ConversationRecord(
        id="",
        owner="",
        title=_title(about),
        system_prompt=text_of(about.get("system_prompt")),
        settings=_object(about.get("settings")),
        extra=_object(about.get("extra")),
        folder=text_of(about.get("folder"))[:100],
        is_pinned=about.get("is_pinned") is True,
        is_archived=about.get("is_archived") is True,
        created_s=seconds(about.get("created_s")),
        updated_s=seconds(about.get("updated_s")),
    )
    named = [
        BranchRecord(one["name"][:100], one["message_id"])
        for one in branches
        if isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and one["name"].strip()
        and isinstance(one.get("message_id"), str)
    ]
    return tree_of(
        map(_our_message, messages),
        head_id=_name(about.get("head_id")),
        record=record,
        branches=named,
    )


def _our_message(one: Any) -> Draft:
    if not isinstance(one, dict) or not isinstance(one.get("id"), str):
        raise InvalidRequest("a message has no id")
    known = {field.name: _known(field.name, one.get(field.name)) for field in fields(MessageRecord)}
    known = {name: value for name, value in known.items() if value is not None}
    role = one.get("role")
    return Draft(
        one["id"],
        _name(one.get("parent_id")),
        ROLES.get(role) if isinstance(role, str) else None,
        text_of(one.get("text")),
        seconds(one.get("created_s")),
        known,
    )


def _known(name: str, value: Any) -> Any:
    """The value of a field of MessageRecord, or None where it is none."""
    if name == "token_ids":
        return _ids(value) if isinstance(value, str) else None
    if name == "status":
        return value if value in STATUSES else None
    if name == "sampling":
        return _only(value, sampling_field_names())
    if name == "extra":
        return _without(value, NOT_TAKEN)
    if name in TEXTS:
        return storable(value[:200]) if isinstance(value, str) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in COUNTS:
        return int(value) if is_number and 0 <= value < 2**31 else None
    return float(value) if name in TIMES and is_number and 0 <= value < 1e12 else None


def _only(value: Any, names: Collection[str]) -> dict[str, Any] | None:
    """The fields of an object that have these names, None where it is no object."""
    return {k: v for k, v in value.items() if k in names} if isinstance(value, dict) else None


def _without(value: Any, names: Collection[str]) -> dict[str, Any] | None:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else None


def _ids(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b"?"
    if len(data) % 4:
        raise InvalidRequest("the token ids of a message are damaged")
    return data


def _not_empty(tree: Tree) -> Tree:
    if not tree.messages:
        raise InvalidRequest("it has no message of a user or an assistant")
    return tree


def _title(entry: dict[str, Any]) -> str:
    return text_of(entry.get("title"))[:1_000]


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
