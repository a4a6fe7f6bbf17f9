"""Functions that a reply may call: their description for the model, and the form of a call.

The models of this app have no templates for tools and were not trained to call any. So a documented
text tells them of the functions, at the end of the system message, and a grammar holds the reply to
calls of these functions, or to a text where that is allowed. The form is always right; whether the
choice is a good one is the model's affair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.protocol import Conversation, Form, GrammarForm, JsonForm, Message

MAX_TOOLS = 128  # OpenAI's
MAX_CALLS = 8  # in one reply
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A call in a text. `tool_calls` reads it back, so nothing in it may vary but name and arguments.
OPENING, MIDDLE, CLOSING = '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"
BETWEEN = "\n"
INSTRUCTIONS = """\
# Tools

You can call these functions:
%s

To call a function, answer with this and nothing else:
<tool_call>
{"name": "the function's name", "arguments": {"an argument": "its value"}}
</tool_call>

What the function returns comes back between <tool_response> and </tool_response>."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. `parameters` is the JSON Schema of its arguments, an object's."""

    name: str
    description: str
    parameters: dict[str, Any]
    is_strict: bool


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions of a request, those that this reply may call, and how."""

    tools: tuple[Tool, ...]
    allowed: tuple[Tool, ...]
    may_answer: bool  # with a text instead of calls
    max_calls: int

    def told(self, messages: Conversation) -> Conversation:
        """The conversation whose system message ends with the functions' description."""
        text = INSTRUCTIONS % "\n".join(map(_described, self.tools))
        first, *rest = messages
        if first.role != "system":
            return Conversation([Message("system", text), *messages])
        whole = f"{first.content}\n\n{text}" if first.content.strip() else text
        return Conversation([Message("system", whole), *rest])

    def form(self, text_form: Form | None) -> GrammarForm:
        """Calls, or where allowed a text, which may have a JSON form of its own."""
        more = f" ({_quoted(BETWEEN)} call){{0,{self.max_calls - 1}}}" if self.max_calls > 1 else ""
        rules = [
            f"calls: call{more}",
            f"call: {_quoted(OPENING)} one {_quoted(CLOSING)}",
            "one: " + " | ".join(f"call{i}" for i in range(len(self.allowed))),
        ]
        for i, tool in enumerate(self.allowed):
            rules.append(f"call{i}: {_quoted(tool.name + MIDDLE)} arguments{i}")
            rules.append(
                f"arguments{i}: {_json_rule(tool.parameters, is_lenient=not tool.is_strict)}"
            )
        if not self.may_answer:
            return GrammarForm("\n".join(["start: calls", *rules]), param="tools")
        if text_form is None:
            rules.append("TEXT: /(?s:.+)/ & ~/(?s:<tool_call>.*)/")
            return GrammarForm("\n".join(["start: calls | TEXT", *rules]), param="tools")
        if not isinstance(text_form, JsonForm):
            raise NotSupported(
                "beside tools a reply can be held to a JSON Schema only; send tools, or the form",
                param="structured_outputs",
            )
        schema = json.loads(text_form.schema)
        rules.append(f"text: {_json_rule(schema, is_lenient=text_form.is_lenient)}")
        return GrammarForm("\n".join(["start: calls | text", *rules]), param="tools")


def tool_use_of(
    tools: Sequence[Any] | None, tool_choice: Any, *, are_parallel: bool | None
) -> ToolUse | None:
    """What a body's three fields ask for; None without tools, or where none may be called. Raises
    InvalidRequest and NotSupported.
    """
    if tool_choice == "none":
        return None
    if not tools:
        if tool_choice not in (None, "auto"):
            raise InvalidRequest(
                f"tool_choice is {shown(tool_choice)} and there are no tools; send some",
                param="tool_choice",
            )
        return None
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(
            f"tools has {len(tools)} entries; allowed are {MAX_TOOLS}", param="tools"
        )
    known = tuple(_tool(entry, f"tools[{place}]") for place, entry in enumerate(tools))
    names = [tool.name for tool in known]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"tools has two functions {shown(twice)}", param="tools")
    max_calls = 1 if are_parallel is False else MAX_CALLS
    return _chosen(known, tool_choice, max_calls)


def _chosen(tools: tuple[Tool, ...], choice: Any, max_calls: int) -> ToolUse | None:
    if choice in (None, "auto", "required"):
        return ToolUse(tools, tools, choice != "required", max_calls)
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        named = _named(tools, [choice], "tool_choice")
        return ToolUse(tools, named, may_answer=False, max_calls=1)
    if kind == "allowed_tools":
        listed = choice.get("allowed_tools", choice)  # chat nests it, responses do not
        entries = listed.get("tools") if isinstance(listed, dict) else None
        mode = listed.get("mode") if isinstance(listed, dict) else None
        if isinstance(entries, list) and entries and mode in ("auto", "required"):
            named = _named(tools, entries, "tool_choice.allowed_tools.tools")
            return ToolUse(tools, named, mode == "auto", max_calls)
    raise InvalidRequest(
        f"tool_choice is {shown(choice)}; allowed are none, auto, required,"
        ' {"type": "function", "function": {"name": "…"}} and {"type": "allowed_tools", …}',
        param="tool_choice",
    )


def _named(tools: tuple[Tool, ...], entries: list[Any], path: str) -> tuple[Tool, ...]:
    found = []
    for entry in entries:
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        tool = next((tool for tool in tools if tool.name == name), None)
        if tool is None:
            have = ", ".join(tool.name for tool in tools)
            raise InvalidRequest(
                f"{path} names the function {shown(name)}; tools has {have}", param=path
            )
        found.append(tool)
    return tuple(found)


def _tool(value: Any, path: str) -> Tool:
    kind = value.get("type") if isinstance(value, dict) else value
    if kind != "function":
        where = f"{path}.type" if isinstance(value, dict) else path
        raise NotSupported(
            f"{where} is {shown(kind)}, which this server does not support; it takes tools of type"
            " function",
            param="tools",
        )
    function = value.get("function")
    if not isinstance(function, dict):
        raise InvalidRequest(
            f'{path}.function is {shown(function)}; it takes {{"name": "…", "parameters": {{…}}}}',
            param=f"{path}.function",
        )
    name, description = function.get("name"), function.get("description") or ""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{path}.function.name is {shown(name)}; it takes up to 64 letters, digits, _ and -",
            param=f"{path}.function.name",
        )
    if not isinstance(description, str):
        raise InvalidRequest(
            f"{path}.function.description is {shown(description)}; it takes a text",
            param=f"{path}.function.description",
        )
    parameters = _parameters(function.get("parameters"), f"{path}.function.parameters")
    return Tool(name, description, parameters, function.get("strict") is True)


def _parameters(value: Any, path: str) -> dict[str, Any]:
    """The schema of the arguments. Arguments that it does not name are not written."""
    schema = {} if value is None else value
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise InvalidRequest(
            f"{path} is {shown(value)}; it takes the JSON Schema of an object", param=path
        )
    return {"additionalProperties": False, **schema, "type": "object"}


def _described(tool: Tool) -> str:
    shape = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps(shape, ensure_ascii=False)


def _json_rule(schema: dict[str, Any] | bool, *, is_lenient: bool) -> str:
    spelling = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": is_lenient,
    }
    whole = schema if isinstance(schema, dict) else {"anyOf": [schema]}
    return "%json " + json.dumps({**whole, "x-guidance": spelling}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
