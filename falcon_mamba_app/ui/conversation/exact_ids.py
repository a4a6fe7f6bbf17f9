"""The ids of a kept conversation: what is stored with each reply, and how the next one begins.

A reply is stored with the ids of its turn: what was read since the reply before, and its own. The
ids of a path are those of its replies in a row. So a conversation that is opened again goes on with
exactly the ids that its stored states have read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from falcon_mamba_app.library import MessageRecord
from falcon_mamba_app.library.tree import ids_of
from falcon_mamba_app.protocol import Continuation, Conversation, Prompt
from falcon_mamba_app.ui.conversation.shelf import Shelf
from falcon_mamba_app.ui.conversation.tree import Node

ID_BYTES = 4


def continued(
    prompt: Prompt, shelf: Shelf | None, asked: Node, *, model: str | None, system_prompt: str
) -> Prompt:
    """The prompt that ends at the message `asked`, or in words of its reply, by the ids up to the
    reply before it; unchanged where they are not known.
    """
    path = asked.path()
    replies = [at for at, node in enumerate(path) if node.message.role == "assistant"]
    if shelf is None or not replies or not isinstance(prompt, Conversation):
        return prompt
    known = [shelf.known(path[at]) for at in replies]
    ids = ids_up_to(known, model=model, system=digest(system_prompt))
    num_before = replies[-1] + 1 + bool(system_prompt)
    return prompt if ids is None else Continuation(ids, Conversation(prompt[num_before:]))


def ids_at(shelf: Shelf | None, node: Node) -> tuple[int, ...] | None:
    """All ids that were read and written up to the last reply at or before `node`; None where they
    are not known.
    """
    replies = [each for each in node.path() if each.message.role == "assistant"]
    known = [None if shelf is None else shelf.known(reply) for reply in replies]
    last = known[-1] if known else None
    if last is None:
        return None
    packed = ids_up_to(known, model=last.model, system=last.extra.get("system"))
    return None if packed is None else ids_of(packed)


def stored_ids(
    packed: bytes | None, prompt: Prompt, system_prompt: str
) -> tuple[bytes | None, dict[str, Any]]:
    """What to store of a reply's ids, from all that were read and written up to its end: those of
    its turn; how many there are in all, and under which system prompt.
    """
    if packed is None:
        return None, {}
    before = prompt.packed_ids if isinstance(prompt, Continuation) else b""
    about = {"num_ids": len(packed) // ID_BYTES, "system": digest(system_prompt)}
    return packed.removeprefix(before), about


def ids_up_to(
    replies: Sequence[MessageRecord | None], *, model: str | None, system: str | None
) -> bytes | None:
    """The ids up to the last of a path's replies; None where they are not all known, or another
    model or system prompt (by its digest) had part in them.
    """
    parts: list[bytes] = []
    num_missing = 0
    for reply in reversed(replies):
        if reply is None or reply.token_ids is None or reply.model != model:
            return None
        num_ids = reply.extra.get("num_ids")
        if reply.extra.get("system") != system or not isinstance(num_ids, int):
            return None
        if parts and num_ids != num_missing:
            return None
        parts.append(reply.token_ids)
        num_missing = num_ids - len(reply.token_ids) // ID_BYTES
        if num_missing <= 0:
            break
    return b"".join(reversed(parts)) if parts and num_missing == 0 else None


def digest(system_prompt: str) -> str:
    """Tells two system prompts apart."""
    data = system_prompt.encode("utf-8", "replace")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
