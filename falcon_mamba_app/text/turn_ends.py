"""Finds how a chat template ends the assistant's turns."""

from __future__ import annotations

from collections.abc import Sequence

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.text.markup import Markup, MarkupToken
from falcon_mamba_app.text.template import Content, Part


def end_of_turn(
    markup: Markup, messages: Sequence[Message], parts: Sequence[Part]
) -> tuple[int | None, str | None]:
    """The first markup after the assistant's words, or else the text before the next one."""
    roles = [messages[p.place].role if isinstance(p, Content) else None for p in parts]
    if "assistant" not in roles:
        return None, None
    after = parts[roles.index("assistant") + 1]
    for part in markup.split(after) if isinstance(after, str) else ():
        if isinstance(part, MarkupToken):
            return part.token_id, None
        if part.strip():
            is_on_its_own_line = "\n" in part[: len(part) - len(part.lstrip())]
            return None, "\n" * is_on_its_own_line + part.strip()
    return None, None
