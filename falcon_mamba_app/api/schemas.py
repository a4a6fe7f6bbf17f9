"""The fields that the OpenAI-compatible endpoints accept.

First `fields` and `contents` remove fields without effect. The remaining fields are checked here
strictly: shapes and types. The protocol checks the ranges of sampling parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from falcon_mamba_app.api.contents import (
    MAX_REPLIES,
    book_of,
    clean_messages,
    prompts_of,
    template_kwargs_of,
)
from falcon_mamba_app.api.fields import LOCAL_FIELDS, MAX_SHOWN, OPENAI_FIELDS, Cleaner, shown
from falcon_mamba_app.api.forms import with_one_name
from falcon_mamba_app.api.generation_config import with_generation_config
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.protocol import MAX_LOGPROBS, Text, TokenIds

NO_LIMIT = -1  # llama.cpp's max_tokens for "as many as fit"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Json = dict[str, Any]
NumTop = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]

_JSON: TypeAdapter[Any] = TypeAdapter(Any)


def _stop_list(value: Any) -> Any:
    """A list of stop strings; an empty one stops nothing."""
    listed = [value] if isinstance(value, str) else value
    return [entry for entry in listed if entry != ""] if isinstance(listed, list) else listed


def _keeps_all(value: Any) -> Any:
    """vLLM and llama.cpp say -1 for a filter that keeps every token."""
    return 0 if value == -1 and type(value) in (int, float) else value


class Strict(BaseModel):
    """A body, or a part of one, without conversion of types and without unknown fields."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        """The body without fields that have no effect. Raises as `Cleaner.clean` does."""
        return body


class StreamOptions(Strict):
    """`continuous_usage_stats` is vLLM's: with `include_usage`, the usage so far in every chunk.
    Obfuscation, padding
    against listeners who count bytes, is left to TLS.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None

    @property
    def asks_for_something(self) -> bool:
        return bool(self.include_usage)


class ChatMessage(Strict):
    """One message; `content` is its text, whichever way it was sent."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class GenerationBody(Strict):
    """The fields that both endpoints share."""

    other_names: ClassVar[Mapping[str, str]] = {"repeat_penalty": "repetition_penalty"}

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_REPLIES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_k: Annotated[int | None, BeforeValidator(_keeps_all)] = None
    top_p: float | None = None
    min_p: float | None = None
    top_n_sigma: Annotated[float | None, BeforeValidator(_keeps_all)] = None
    typical_p: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_stop_list)] = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, float] | None = None
    skip_special_tokens: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    # These three say whose states a request may begin from, or that it saves none.
    store: bool | None = None
    cache_prompt: bool | None = None
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
    prompt_cache_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    book: Annotated[str | list[str] | None, PlainValidator(book_of)] = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        for other, name in cls.other_names.items():
            if other in body:
                body = {name: body[other], **body}
                del body[other]
        body = with_one_name(with_generation_config(body))
        own = cls.model_fields.keys()
        body = Cleaner({**OPENAI_FIELDS, **LOCAL_FIELDS}, own=own).clean(body)
        if body.get("prompt_cache_key") == "":
            del body["prompt_cache_key"]
        if isinstance(options := body.get("stream_options"), dict):
            names = StreamOptions.model_fields.keys()
            body["stream_options"] = Cleaner({}, own=names).clean(options, "stream_options.")
        return body

    @model_validator(mode="after")
    def _refuse_stream_options_without_stream(self) -> GenerationBody:
        if self.stream_options and self.stream_options.asks_for_something and not self.stream:
            raise InvalidRequest("stream_options needs stream: true", param="stream_options")
        return self


class ChatBody(GenerationBody):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    # The last message's role decides this already; a contradiction is refused.
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: Annotated[Json | None, PlainValidator(template_kwargs_of)] = None
    echo: bool | None = None  # the assistant's begun words stand before the reply
    max_tokens: Annotated[int, Field(ge=NO_LIMIT)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=NO_LIMIT)] | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    prompt_logprobs: NumTop | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().cleaned(body)
        if body.get("logprobs") == 0:
            del body["logprobs"]
        if "messages" in body:
            body["messages"] = clean_messages(body["messages"])
        return body

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> ChatBody:
        for field in ("max_tokens", "max_completion_tokens"):
            if getattr(self, field) == 0:
                raise InvalidRequest(
                    f"{field} is 0; allowed are 1 and more, or {NO_LIMIT} for no limit of your own",
                    param=field,
                )
        self._refuse_another_end()
        refuse_streamed_scores(self.prompt_logprobs, self.stream)
        if self.top_logprobs and not self.logprobs:
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

    def _refuse_another_end(self) -> None:
        """A reply begins the assistant's turn, or continues the one at the end of the messages."""
        is_begun = self.messages[-1].role == "assistant"
        wanted = {"continue_final_message": is_begun, "add_generation_prompt": not is_begun}
        last = f"the last message is the {self.messages[-1].role}'s"
        for field, allowed in wanted.items():
            if getattr(self, field) not in (None, allowed):
                raise InvalidRequest(
                    f"{field} is {str(not allowed).lower()} and {last}; a last message of the"
                    " assistant's is continued, any other is answered",
                    param=field,
                )


class CompletionBody(GenerationBody):
    """The body of POST /v1/completions; `prompt` is a list whichever way it was sent."""

    other_names = {**GenerationBody.other_names, "n_predict": "max_tokens"}

    prompt: Annotated[list[Text | TokenIds], PlainValidator(prompts_of)]
    max_tokens: Annotated[int, Field(ge=NO_LIMIT)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    prompt_logprobs: NumTop | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    echo: bool | None = None
    best_of: int | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().cleaned(body)
        if body.get("logprobs") is False:
            del body["logprobs"]
        return body

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> CompletionBody:
        num_each = self.n or 1
        refuse_streamed_scores(self.prompt_logprobs, self.stream)
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


def refuse_streamed_scores(prompt_logprobs: int | None, is_streamed: bool | None) -> None:
    """Raises InvalidRequest: a whole prompt's scores are no part of a stream."""
    if prompt_logprobs is not None and is_streamed:
        raise InvalidRequest(
            f"prompt_logprobs is {prompt_logprobs} and stream true; a prompt's log-probabilities"
            " come in a whole answer only: leave out one of them",
            param="prompt_logprobs",
        )


Body = TypeVar("Body", bound=Strict)


def parse_body(kind: type[Body], data: bytes) -> Body:
    """The checked body. Raises InvalidRequest with one sentence that names the field."""
    try:
        value = _JSON.validate_json(data.removeprefix(BYTE_ORDER_MARK))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Invalid JSON: ")
        raise InvalidRequest(f"the body is no valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is {shown(value)}; it must be a JSON object")
    try:
        return kind.model_validate(kind.cleaned(value))
    except ValidationError as error:
        raise _one_sentence(error) from None


def _one_sentence(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    param = _path(first["loc"])
    if first["type"] == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if first["type"] == "too_short" and first["loc"] == ("messages",):
        return InvalidRequest("messages is empty; at least one is needed", param=param)
    rule = first["msg"].removeprefix("Input ")
    return InvalidRequest(f"{param} is {shown(first['input'])}; it {rule}", param=param)


def _path(location: tuple[int | str, ...]) -> str:
    """messages[0].content from ("messages", 0, "content")."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    path = path.removeprefix(".")
    return path if len(path) <= MAX_SHOWN else path[:MAX_SHOWN] + "…"
