"""Items of OpenAI's Responses: checked on their way in, shown on their way out.

An item is a message here. Its text may come in parts, which are remembered as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.api.fields import ANY_LIST, ANY_TEXT, Cleaner, Table, no_text, shown
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Message

MAX_ITEMS = 20_000
ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = ("input_text", "output_text", "text")

_ITEM_FIELDS: Table = {
    "id": ANY_TEXT,
    "status": ANY_TEXT,
    "phase": ANY_TEXT,
    "name": ANY_TEXT,
}
_PART_FIELDS: Table = {
    "annotations": ANY_LIST,
    "logprobs": ANY_LIST,
    "prompt_cache_breakpoint": (bool, dict),
}
_ITEM = Cleaner(_ITEM_FIELDS, own=("type", "role", "content"))
_PART = Cleaner(_PART_FIELDS, own=("type", "text"))


@dataclass(frozen=True, slots=True)
class Item:
    """One message: its role as it was sent, and its parts."""

    role: str
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.parts)

    @property
    def message(self) -> Message:
        """As the model's template knows it."""
        role = "system" if self.role == "developer" else self.role
        return Message(role, self.text)  # type: ignore[arg-type]

    @property
    def extra(self) -> dict[str, Any]:
        """What the library would not know otherwise."""
        extra: dict[str, Any] = {}
        if self.role == "developer":
            extra["role"] = self.role
        if len(self.parts) > 1:
            extra["parts"] = list(self.parts)
        return extra


def items_of(value: Any, path: str = "input") -> list[Item]:
    """The items of a text, or of a list. Raises InvalidRequest, NotSupported."""
    if isinstance(value, str):
        return [Item("user", (value,))]
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            f"{path} is {shown(value)}; it must be a text, or a list of at least one item",
            param=path,
        )
    if len(value) > MAX_ITEMS:
        raise InvalidRequest(
            f"{path} has {len(value)} items; this server accepts at most {MAX_ITEMS}", param=path
        )
    return [_item(entry, f"{path}[{place}]") for place, entry in enumerate(value)]


def _item(value: Any, path: str) -> Item:
    if not isinstance(value, dict):
        raise InvalidRequest(
            f'{path} is {shown(value)}; an item is {{"role": "user", "content": "…"}}', param=path
        )
    kind = value.get("type", "message")
    if kind != "message":
        raise no_text(kind, f"{path}.type", "items of type message")
    item = _ITEM.clean(value, path + ".")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise InvalidRequest(
            f"{path}.role is {shown(role)}; allowed are {', '.join(ROLES)}", param=f"{path}.role"
        )
    if isinstance(content, str):
        return Item(role, (content,))
    if not isinstance(content, list) or not content:
        raise InvalidRequest(
            f"{path}.content is {shown(content)}; it must be a text, or a list of parts",
            param=f"{path}.content",
        )
    parts = [_part(part, f"{path}.content[{place}]") for place, part in enumerate(content)]
    return Item(role, tuple(parts))


def _part(value: Any, path: str) -> str:
    kind = value.get("type") if isinstance(value, dict) else value
    if kind not in TEXT_PARTS:
        where = f"{path}.type" if isinstance(value, dict) else path
        raise no_text(kind, where, "parts of type input_text or output_text")
    text = _PART.clean(value, path + ".").get("text")
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.text is {shown(text)}; it must be a text", param=path)
    return text


def output_item(
    item_id: str, text: str, *, status: str = "completed", logprobs: list[Any] | None = None
) -> dict[str, Any]:
    """The assistant's message."""
    part = {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": logprobs or [],
    }
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def input_item(item_id: str, role: str, parts: list[str]) -> dict[str, Any]:
    """A message that somebody sent."""
    if role == "assistant":
        return output_item(item_id, "\n".join(parts))
    return {
        "id": item_id,
        "type": "message",
        "role": role,
        "status": "completed",
        "content": [{"type": "input_text", "text": part} for part in parts],
    }
