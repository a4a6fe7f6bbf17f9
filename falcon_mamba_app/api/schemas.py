"""What the OpenAI-compatible endpoints accept, field by field.

There are three kinds of fields: those that steer the reply; those that OpenAI's clients send and
that change nothing about it (`user`, `metadata`, …); and those that ask for what this server does
not have. The last are refused unless their value asks for nothing, and so is every unknown field.
This module checks shapes and types; ranges of sampling are the protocol's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.protocol import MAX_LOGPROBS, Text, TokenIds

MAX_REPLIES = 128  # prompts × n of one request
MAX_MESSAGES = 20_000
MAX_SHOWN = 80  # characters of the user's own words in a sentence about them
MAX_TOKEN_ID = 2**31 - 1

# Fields of OpenAI's API that this server does not have, with the values that ask for nothing.
NOT_SUPPORTED: Mapping[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "logit_bias": ({},),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "moderation": (),
    "suffix": ("",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "prompt_cache_retention": ("in_memory", "in-memory"),
}
NOT_SUPPORTED_IN_MESSAGES: Mapping[str, tuple[object, ...]] = {
    "name": (),
    "tool_calls": ([],),
    "tool_call_id": (),
    "function_call": (),
    "refusal": (),
    "audio": (),
    "annotations": ([],),
}


def _without_not_supported(body: Any, table: Mapping[str, tuple[object, ...]]) -> Any:
    """`body` without the fields of `table`. Raises NotSupported for one that asks for something."""
    if not isinstance(body, dict):
        return body
    for name in table.keys() & body.keys():
        value = body[name]
        if value is not None and not any(_is_same(value, neutral) for neutral in table[name]):
            raise NotSupported(f"{name} is not supported with this value", param=name)
    return {name: value for name, value in body.items() if name not in table}


def _is_same(value: object, neutral: object) -> bool:
    """Equal and of one type: 1 is not True."""
    return type(value) is type(neutral) and value == neutral


def _stop_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _content_text(value: Any) -> Any:
    """The text of a message from a string or from a list of text parts."""
    if not isinstance(value, list):
        return value
    texts = [_part_text(part) for part in value]
    if not texts:
        raise InvalidRequest("content is an empty list; send text parts", param="messages")
    return "\n".join(texts)


def _part_text(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise NotSupported('content takes only parts of {"type": "text"}', param="messages")
    if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
        raise InvalidRequest('a text part is {"type": "text", "text": "…"}', param="messages")
    return part["text"]


def _prompts(value: Any) -> list[Text | TokenIds]:
    """A list of prompts from any of OpenAI's four forms."""
    if isinstance(value, str):
        return [Text(value)]
    if isinstance(value, list) and value:
        if _is_ids(value):
            return [TokenIds(value)]
        if len(value) > MAX_REPLIES:
            raise InvalidRequest(
                f"prompt has {len(value)} entries, not all of them token ids; one request may ask"
                f" for {MAX_REPLIES} replies",
                param="prompt",
            )
        if all(isinstance(item, str) or _is_ids(item) for item in value):
            return [Text(item) if isinstance(item, str) else TokenIds(item) for item in value]
    raise InvalidRequest(
        "prompt takes a string, token ids, or a list of either; none may be an empty list",
        param="prompt",
    )


def _few_messages(value: Any) -> Any:
    """`value`, if it is short enough to look at its elements, which costs 1.5 µs each."""
    if isinstance(value, list) and len(value) > MAX_MESSAGES:
        raise InvalidRequest(
            f"messages has {len(value)} entries; this server accepts at most {MAX_MESSAGES}",
            param="messages",
        )
    return value


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 <= item <= MAX_TOKEN_ID for item in value)
    )


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class StreamOptions(_Strict):
    """`continuous_usage_stats` is vLLM's: the usage so far in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ChatMessage(_Strict):
    """One message; `content` is its text, whichever way it was sent."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content_text)]

    @model_validator(mode="before")
    @classmethod
    def _refuse_not_supported(cls, body: Any) -> Any:
        return _without_not_supported(body, NOT_SUPPORTED_IN_MESSAGES)


class _GenerationBody(_Strict):
    """The fields that both endpoints share."""

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_REPLIES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_stop_list)] = None
    ignore_eos: bool | None = None
    prompt_cache_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_not_supported(cls, body: Any) -> Any:
        return _without_not_supported(body, NOT_SUPPORTED)

    @model_validator(mode="after")
    def _refuse_stream_options_without_stream(self) -> _GenerationBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options needs stream: true", param="stream_options")
        return self


class ChatBody(_GenerationBody):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1), BeforeValidator(_few_messages)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise InvalidRequest(
                f"max_tokens is {self.max_tokens} and max_completion_tokens"
                f" {self.max_completion_tokens}; they mean the same, send one",
                param="max_completion_tokens",
            )
        return self


class CompletionBody(_GenerationBody):
    """The body of POST /v1/completions; `prompt` is a list whichever way it was sent."""

    prompt: Annotated[list[Text | TokenIds], PlainValidator(_prompts)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> CompletionBody:
        num_each = self.n or 1
        if self.max_tokens == 0 and num_each > 1:
            raise InvalidRequest(f"n is {num_each}; with max_tokens 0 it must be 1", param="n")
        if self.best_of is not None and self.best_of != num_each:
            raise NotSupported(
                f"best_of is {self.best_of} and n {num_each}; this server keeps every reply,"
                " so best_of must equal n",
                param="best_of",
            )
        if self.best_of is not None and self.stream:
            raise NotSupported("best_of cannot be streamed", param="best_of")
        if len(self.prompt) * num_each > MAX_REPLIES:
            raise InvalidRequest(
                f"{len(self.prompt)} prompts with n {num_each} are"
                f" {len(self.prompt) * num_each} replies; allowed are {MAX_REPLIES}",
                param="prompt",
            )
        return self


Body = TypeVar("Body", bound=_GenerationBody)


def parse_body(kind: type[Body], data: bytes) -> Body:
    """The checked body. Raises InvalidRequest with one sentence that names the field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _one_sentence(error) from None


def _one_sentence(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = _path(first["loc"])
    message = first["msg"]
    if first["type"] == "json_invalid":
        return InvalidRequest(
            f"the body is no valid JSON: {message.removeprefix('Invalid JSON: ')}"
        )
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"unknown field {param}", param=param)
    if first["type"] == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if first["type"] == "too_short" and first["loc"] == ("messages",):
        return InvalidRequest("messages is empty; at least one is needed", param=param)
    message = message.removeprefix("Input ")
    return InvalidRequest(f"{param or 'the body'}: {message}", param=param or None)


def _path(location: tuple[int | str, ...]) -> str:
    """messages[0].content from ("messages", 0, "content")."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    path = path.removeprefix(".")
    return path if len(path) <= MAX_SHOWN else path[:MAX_SHOWN] + "…"
