"""Converts all allowed forms of messages and prompts to one; refusals name the full path."""

from __future__ import annotations

import json
from typing import Any

from falcon_mamba_app.api.fields import (
    MAX_SHOWN,
    MESSAGE_FIELDS,
    PART_FIELDS,
    Cleaner,
    no_text,
    shown,
)
from falcon_mamba_app.api.tool_messages import call_texts, result_text, with_results_joined
from falcon_mamba_app.books.rows import MAX_IN_A_ROW
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Text, TokenIds

MAX_REPLIES = 128  # prompts × n of one request
MAX_MESSAGES = 20_000
MAX_TOKEN_ID = 2**31 - 1
MAX_TEMPLATE_KWARGS_CHARS = 20_000
# What transformers' apply_chat_template takes beside a template's own variables, or gives to each.
OWN_TEMPLATE_VARIABLES = (
    *("messages", "conversation", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("chat_template", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "tools", "documents"),
)

TEXT_PARTS = 'parts of {"type": "text"}'

_MESSAGE = Cleaner(MESSAGE_FIELDS, own=("role", "content"))
_WITH_TOOLS = {
    "assistant": Cleaner(MESSAGE_FIELDS, own=("role", "content", "tool_calls")),
    "tool": Cleaner(MESSAGE_FIELDS, own=("role", "content", "tool_call_id")),
}
_PART = Cleaner(PART_FIELDS, own=("type", "text"))


def clean_messages(value: Any) -> Any:
    """The messages with only role and text, the text in one piece."""
    if not isinstance(value, list):
        return value
    if len(value) > MAX_MESSAGES:  # each costs 2 µs to check
        raise InvalidRequest(
            f"messages has {len(value)} entries; this server accepts at most {MAX_MESSAGES}",
            param="messages",
        )
    messages = [_clean_message(entry, f"messages[{place}]") for place, entry in enumerate(value)]
    if value and isinstance(value[-1], dict) and value[-1].get("tool_calls"):
        path = f"messages[{len(value) - 1}].tool_calls"
        raise InvalidRequest(
            f"{path} is the end of the conversation; send what the functions returned too, as"
            " messages of the role tool",
            param=path,
        )
    return with_results_joined(messages)


def _clean_message(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    role = value.get("role")
    cleaner = _WITH_TOOLS.get(role, _MESSAGE) if isinstance(role, str) else _MESSAGE
    message = cleaner.clean(value, path + ".")
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = _joined_parts(content, path + ".content")
    if role == "tool":
        return {"role": role, "content": result_text(message, path)}
    if role == "assistant" and (calls := message.pop("tool_calls", None)):
        texts = (message.get("content"), call_texts(calls, path + ".tool_calls"))
        return {**message, "content": "\n".join(filter(None, texts))}
    if content is None and role == "assistant" and "content" in value:
        return {**message, "content": ""}  # as OpenAI's clients send back an empty reply
    return message


def _joined_parts(parts: list[Any], path: str) -> str:
    if not parts:
        raise InvalidRequest(f"{path} is an empty list; send text parts", param=path)
    return "\n".join(_part_text(part, f"{path}[{place}]") for place, part in enumerate(parts))


def _part_text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    kind = value.get("type") if isinstance(value, dict) else value
    if kind != "text":
        where = path + ".type" if isinstance(value, dict) else path
        raise no_text(kind, where, TEXT_PARTS)
    text = _PART.clean(value, path + ".").get("text")
    if not isinstance(text, str):
        raise InvalidRequest(
            f'{path}.text is {shown(text)}; a text part is {{"type": "text", "text": "…"}}',
            param=path + ".text",
        )
    return text


def template_kwargs_of(value: Any) -> dict[str, Any] | None:
    """Values for the chat template's variables. Raises InvalidRequest."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(json.dumps(value)) > MAX_TEMPLATE_KWARGS_CHARS:
        raise InvalidRequest(
            f"chat_template_kwargs is {shown(value)}; it must be an object of at most"
            f" {MAX_TEMPLATE_KWARGS_CHARS:,} characters of JSON",
            param="chat_template_kwargs",
        )
    for name in value:
        if not name.isidentifier() or name in OWN_TEMPLATE_VARIABLES:
            raise InvalidRequest(
                f"chat_template_kwargs names {shown(name)}; it takes names of variables, but not"
                f" {', '.join(OWN_TEMPLATE_VARIABLES)}, which the server sets",
                param=f"chat_template_kwargs.{name[:MAX_SHOWN]}",
            )
    return value


def book_of(value: Any) -> str | list[str] | None:
    """The id of a book, or of several in the order of reading."""
    if value is None:
        return None
    named = [value] if isinstance(value, str) else value
    is_listed = isinstance(named, list) and 0 < len(named) <= MAX_IN_A_ROW
    if not is_listed or not all(isinstance(one, str) and 0 < len(one) <= 200 for one in named):
        raise InvalidRequest(
            f"book is {shown(value)}; it takes the id of a book, or a list of up to {MAX_IN_A_ROW}"
            " in the order of reading",
            param="book",
        )
    return named[0] if len(named) == 1 else named


def prompts_of(value: Any) -> list[Text | TokenIds]:
    """A list of prompts from any of OpenAI's four forms."""
    if isinstance(value, str):
        return [Text(value)]
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            "prompt takes a string, token ids, or a list of either; none may be an empty list",
            param="prompt",
        )
    if _is_ids(value):
        return [TokenIds(value)]
    if len(value) > MAX_REPLIES:
        raise InvalidRequest(
            f"prompt has {len(value)} entries, not all of them token ids; one request may ask"
            f" for {MAX_REPLIES} replies",
            param="prompt",
        )
    return [_prompt(entry, f"prompt[{place}]") for place, entry in enumerate(value)]


def _prompt(value: Any, path: str) -> Text | TokenIds:
    if isinstance(value, str):
        return Text(value)
    if _is_ids(value):
        return TokenIds(value)
    raise InvalidRequest(
        f"{path} is {shown(value)}; prompt takes a string, token ids from 0 to {MAX_TOKEN_ID}, or"
        " a list of either",
        param=path,
    )


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 <= item <= MAX_TOKEN_ID for item in value)
    )
