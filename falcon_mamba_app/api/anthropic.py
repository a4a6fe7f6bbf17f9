"""Anthropic's Messages API as a chat: its fields in, and its shapes of an answer out.

A thin layer: a body becomes the same body of /v1/chat/completions, so whatever holds there holds
here. Why a reply ended is told as far as it is known: a stop sequence counts as the end of a turn.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from falcon_mamba_app.api.contents import TEXT_PARTS
from falcon_mamba_app.api.fields import Cleaner, Table, no_text, shown
from falcon_mamba_app.api.running import ReplyEvent
from falcon_mamba_app.api.schemas import ChatBody, StreamOptions
from falcon_mamba_app.api.tool_calls import CallReader
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.http.errors import error_body, presentable
from falcon_mamba_app.http.transport import to_json
from falcon_mamba_app.protocol import Accepted, Finished, GenerationEvent, TextDelta

Json = dict[str, Any]

# Fields that have the same name and meaning in a chat.
SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
# Hints and settings of Anthropic's own service, which change no reply here.
WITHOUT_EFFECT = ("metadata", "service_tier", "container", "inference_geo", "cache_control")
OWN = ("messages", "system", "stop_sequences", "tools", "tool_choice", "thinking")
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
REASONS = {"stop": "end_turn", "length": "max_tokens"}


# What a chat has and this shape has no place for.
WITHOUT_PLACE: Table = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "echo": (False,),
    "stream_options": ({},),
}


class MessagesBody(ChatBody):
    """The body of POST /v1/messages."""

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("max_tokens") is None:
            raise InvalidRequest("max_tokens is missing", param="max_tokens")
        others = body.keys() - WITHOUT_PLACE.keys()
        body = Cleaner(WITHOUT_PLACE, own=others).clean(body)
        return super().cleaned(as_chat(body))


def as_chat(body: Json) -> Json:
    """The same request as a body of chat. Raises InvalidRequest and NotSupported."""
    known = (*SAME, *OWN, *WITHOUT_EFFECT)
    # Other fields go on as they are, to be refused by their names.
    chat = {n: value for n, value in body.items() if n in SAME or n not in known}
    if (body.get("thinking") or {"type": "disabled"}) != {"type": "disabled"}:
        raise NotSupported(
            'thinking takes {"type": "disabled"}: the model does not reason before it answers',
            param="thinking",
        )
    messages: list[Any] = []
    if body.get("system"):
        messages.append({"role": "system", "content": body["system"]})
    for place, message in enumerate(_list(body.get("messages"), "messages")):
        messages += _chat_messages(message, f"messages[{place}]")
    chat["messages"] = messages
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    if body.get("tools"):
        chat["tools"] = [
            _chat_tool(t, f"tools[{i}]") for i, t in enumerate(_list(body["tools"], "tools"))
        ]
        chat |= _chat_choice(body.get("tool_choice"))
    return chat


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{path} is {shown(value)}; it takes a list", param=path)
    return value


def _chat_messages(message: Any, path: str) -> list[Any]:
    """One message as chat has it: results of functions are messages of their own there."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return [message]
    role = message.get("role")
    texts: list[Any] = []
    calls: list[Json] = []
    results: list[Json] = []
    for place, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_use":
            calls.append(_call(block, f"{path}.content[{place}]"))
        elif kind == "tool_result":
            _refuse_other_parts(block.get("content"), f"{path}.content[{place}].content")
            results.append(_result(block))
        elif isinstance(block, dict) and kind != "text":  # here its place is known
            raise no_text(kind, f"{path}.content[{place}].type", TEXT_PARTS)
        else:
            texts.append(block)
    if calls:
        return [{"role": role, "content": texts or None, "tool_calls": calls}]
    return results + ([{"role": role, "content": texts}] if texts or not results else [])


def _refuse_other_parts(content: Any, path: str) -> None:
    """What is in a tool's result that is no text."""
    for place, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") != "text":
            raise no_text(part.get("type"), f"{path}[{place}].type", TEXT_PARTS)


def _call(block: Json, path: str) -> Json:
    if not isinstance(block.get("input"), dict):
        raise InvalidRequest(
            f"{path}.input is {shown(block.get('input'))}; it takes an object",
            param=f"{path}.input",
        )
    arguments = json.dumps(block["input"], ensure_ascii=False)  # as the model has written it
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _result(block: Json) -> Json:
    content = "" if block.get("content") is None else block["content"]
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content or ""}


def _chat_tool(tool: Any, path: str) -> Any:
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
        raise NotSupported(
            f"{path} is {shown(tool)}; it takes tools of type custom, which the caller runs",
            param=path,
        )
    function = {"name": tool.get("name"), "description": tool.get("description")}
    return {"type": "function", "function": {**function, "parameters": tool.get("input_schema")}}


def _chat_choice(choice: Any) -> Json:
    if choice is None:
        return {}
    kind = choice.get("type") if isinstance(choice, dict) else choice
    chat: Json = {}
    if isinstance(choice, dict) and choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False
    if kind == "tool":
        return {
            **chat,
            "tool_choice": {"type": "function", "function": {"name": choice.get("name")}},
        }
    if kind not in CHOICES:
        raise InvalidRequest(
            f"tool_choice is {shown(choice)}; its type is one of auto, any, tool and none",
            param="tool_choice",
        )
    return {**chat, "tool_choice": CHOICES[kind]}


class MessagesAnswer:
    """One answer in progress, whole or as a stream of named events."""

    def __init__(self, model_id: str, *, reads_calls: bool) -> None:
        self._message: Json = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model_id,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._reader = CallReader() if reads_calls else None
        self._block: Json | None = None  # the one that is being written
        self._arguments = ""

    async def whole(self, events: AsyncGenerator[ReplyEvent, None]) -> Json:
        """The message, when the reply has finished."""
        async with aclosing(events):
            async for _, event in events:
                for _ in self._told(event):
                    pass
        return self._message

    async def streamed(
        self, first: ReplyEvent, events: AsyncGenerator[ReplyEvent, None], options: StreamOptions
    ) -> AsyncGenerator[bytes, None]:
        """The events of the stream; the first event of the reply has been read already."""
        try:
            for part in self._told(first[1]):
                yield _event(part)
            async with aclosing(events):
                async for _, event in events:
                    for part in self._told(event):
                        yield _event(part)
        except Exception as error:
            yield _event({"type": "error", **error_body(presentable(error))})

    def _told(self, event: GenerationEvent) -> Iterator[Json]:
        """The stream's events for one event of the service; the message grows by the same."""
        if isinstance(event, Accepted):
            self._count_input(event.prompt_tokens, event.reused_tokens)
            yield {"type": "message_start", "message": {**self._message, "content": []}}
        elif isinstance(event, TextDelta):
            deltas = self._reader.feed(event.text) if self._reader else [{"content": event.text}]
            for delta in deltas:
                yield from self._grown(delta)
        elif isinstance(event, Finished):
            for delta in self._reader.flush() if self._reader else ():
                yield from self._grown(delta)
            yield from self._closed()
            yield from self._ended(event)

    def _count_input(self, prompt_tokens: int | None, reused_tokens: int | None) -> None:
        """Anthropic counts what was read from a cache apart."""
        reused = reused_tokens or 0
        self._message["usage"] |= {
            "input_tokens": (prompt_tokens or 0) - reused,
            "cache_read_input_tokens": reused,
            "cache_creation_input_tokens": 0,
        }

    def _grown(self, delta: Json) -> Iterator[Json]:
        if "content" in delta:
            if self._block is None:
                yield from self._opened({"type": "text", "text": ""})
            assert self._block is not None
            self._block["text"] += delta["content"]
            yield self._changed({"type": "text_delta", "text": delta["content"]})
            return
        for call in delta["tool_calls"]:
            function = call["function"]
            if "name" in function:
                yield from self._closed()
                block = {
                    "type": "tool_use",
                    "id": call["id"],
                    "name": function["name"],
                    "input": {},
                }
                yield from self._opened(block)
            else:
                self._arguments += function["arguments"]
                partial = function["arguments"]
                yield self._changed({"type": "input_json_delta", "partial_json": partial})

    def _opened(self, block: Json) -> Iterator[Json]:
        self._block, self._arguments = block, ""
        self._message["content"].append(block)
        yield {"type": "content_block_start", "index": self._index, "content_block": dict(block)}

    def _closed(self) -> Iterator[Json]:
        if self._block is None:
            return
        if self._block["type"] == "tool_use":
            self._block["input"] = _value(self._arguments)
        self._block = None
        yield {"type": "content_block_stop", "index": self._index}

    def _ended(self, event: Finished) -> Iterator[Json]:
        has_called = event.reason == "stop" and self._reader and self._reader.num_calls
        self._message["stop_reason"] = "tool_use" if has_called else REASONS[event.reason]
        self._message["usage"]["output_tokens"] = event.completion_tokens
        delta = {"stop_reason": self._message["stop_reason"], "stop_sequence": None}
        usage = {"output_tokens": event.completion_tokens}
        yield {"type": "message_delta", "delta": delta, "usage": usage}
        yield {"type": "message_stop"}

    @property
    def _index(self) -> int:
        return len(self._message["content"]) - 1

    def _changed(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _value(arguments: str) -> Any:
    """The arguments of a call; of one that was cut off, what can be read is nothing."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _event(value: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (value["type"].encode(), to_json(value))
