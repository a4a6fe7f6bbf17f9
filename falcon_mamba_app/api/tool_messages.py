"""Calls and their results in a conversation, as the text that the model has written and reads.

A call is written back exactly as the model wrote it, so the conversation's ids, and with them the
saved states, stay the same.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.api.tools import BETWEEN, CLOSING, MIDDLE, NAME, OPENING
from falcon_mamba_app.errors import InvalidRequest


def call_texts(calls: Any, path: str) -> str:
    """The text of an assistant's `tool_calls`. Raises InvalidRequest."""
    if not isinstance(calls, list):
        raise InvalidRequest(f"{path} is {shown(calls)}; it takes a list of calls", param=path)
    return BETWEEN.join(_call_text(call, f"{path}[{place}]") for place, call in enumerate(calls))


def _call_text(call: Any, path: str) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(arguments, str):
        raise InvalidRequest(
            f'{path} is {shown(call)}; a call is {{"id": "…", "type": "function", "function":'
            ' {"name": "…", "arguments": "…"}}',
            param=path,
        )
    return f"{OPENING}{name}{MIDDLE}{arguments or '{}'}{CLOSING}"


def result_text(message: dict[str, Any], path: str) -> str:
    """The text of a message of the tool's, whose content is one text. Raises InvalidRequest."""
    if not isinstance(message.get("tool_call_id"), str):
        where = f"{path}.tool_call_id"
        raise InvalidRequest(
            f"{where} is {shown(message.get('tool_call_id'))}; a tool's message names the call that"
            " it answers",
            param=where,
        )
    content = message.get("content")
    if not isinstance(content, str):
        where = f"{path}.content"
        raise InvalidRequest(f"{where} is {shown(content)}; it takes a text", param=where)
    return f"<tool_response>\n{content}\n</tool_response>"


def with_results_joined(messages: list[Any]) -> list[Any]:
    """The results of one reply's calls as one message of the user's: templates take turns."""
    joined: list[Any] = []
    for is_result, group in groupby(messages, key=_is_result):
        if is_result:
            content = "\n".join(message["content"] for message in group)
            joined.append({"role": "user", "content": content})
        else:
            joined += group
    return joined


def _is_result(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "tool"
