"""The fields of Responses and Conversations, and of their queries. Shapes only; see `schemas`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator
from starlette.datastructures import QueryParams

from falcon_mamba_app.api.fields import ANY_NUMBER, Cleaner, Table, shown
from falcon_mamba_app.api.listing import whole_number
from falcon_mamba_app.api.responses.items import Item, items_of
from falcon_mamba_app.api.schemas import GenerationBody, Strict
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.protocol import MAX_LOGPROBS

LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (
    LOGPROBS,
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
)
MAX_METADATA, MAX_METADATA_NAME, MAX_METADATA_VALUE = 16, 64, 512
MAX_ITEMS_AT_ONCE = 20

_RESPONSE_FIELDS: Table = {
    "max_tool_calls": ANY_NUMBER,
    "reasoning": ({}, {"effort": "none"}),
    "prompt": (),
    "context_management": ([],),
}


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        raise InvalidRequest(
            f"metadata is {shown(value)}; it must be an object of at most {MAX_METADATA} texts",
            param="metadata",
        )
    for name, entry in value.items():
        if not isinstance(entry, str) or len(entry) > MAX_METADATA_VALUE:
            raise InvalidRequest(
                f"metadata.{name[:MAX_METADATA_NAME]} is {shown(entry)}; it must be a text of at"
                f" most {MAX_METADATA_VALUE} characters",
                param="metadata",
            )
        if len(name) > MAX_METADATA_NAME:
            raise InvalidRequest(
                f"metadata has a name of {len(name)} characters; allowed are {MAX_METADATA_NAME}",
                param="metadata",
            )
    return value


def _format_of(text: Any) -> Any:
    """`text.format` as the chat's `response_format`, which has a schema one level deeper."""
    if not isinstance(text, dict):
        raise InvalidRequest(
            f'text is {shown(text)}; it must be an object, as {{"format": {{"type": "text"}}}}',
            param="text",
        )
    kept = Cleaner({"verbosity": ("medium",)}, own=("format",)).clean(text, "text.")
    given = kept.get("format")
    if isinstance(given, dict) and given.get("type") == "json_schema":
        schema = {name: value for name, value in given.items() if name != "type"}
        return {"type": "json_schema", "json_schema": schema}
    return given


def _conversation_id(value: Any) -> str:
    found = value.get("id") if isinstance(value, dict) else value
    if not isinstance(found, str) or not found:
        raise InvalidRequest(
            f'conversation is {shown(value)}; it must be an id, or {{"id": "conv_…"}}',
            param="conversation",
        )
    return found


Metadata = Annotated[dict[str, str], PlainValidator(_metadata)]
Items = Annotated[list[Item], PlainValidator(partial(items_of, path="items"))]
Input = Annotated[list[Item], PlainValidator(items_of)]


class ResponseBody(GenerationBody):
    """The body of POST /v1/responses."""

    input: Input
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Annotated[str, PlainValidator(_conversation_id)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    metadata: Metadata | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        own = cls.model_fields.keys()
        neutral = {name: body[name] for name in _RESPONSE_FIELDS if name in body}
        Cleaner(_RESPONSE_FIELDS, own=own).clean(neutral)
        body = {name: value for name, value in body.items() if name not in neutral}
        text = body.pop("text", None)
        if text is not None and "response_format" not in body:
            body["response_format"] = _format_of(text)
        return super().cleaned(body)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> ResponseBody:
        if self.previous_response_id is not None and self.conversation is not None:
            raise InvalidRequest(
                "previous_response_id and conversation say both what came before; send one",
                param="previous_response_id",
            )
        if (self.n or 1) != 1:
            raise NotSupported(f"n is {self.n}; a response is one reply", param="n")
        if self.background and self.store is False:
            raise InvalidRequest(
                "background needs store: true, so that the response can be fetched",
                param="background",
            )
        if self.conversation is not None and self.store is False:
            raise InvalidRequest(
                "a response in a conversation is part of it; leave store out", param="store"
            )
        for name in self.include or ():
            if name not in INCLUDABLE:
                raise InvalidRequest(
                    f"include names {shown(name)}; allowed are {', '.join(INCLUDABLE)}",
                    param="include",
                )
        return self

    @property
    def format(self) -> dict[str, Any]:
        """The form of the reply as OpenAI's `text.format`."""
        given = self.response_format or {"type": "text"}
        if given.get("type") != "json_schema" or not isinstance(given.get("json_schema"), dict):
            return given
        return {"type": "json_schema", **given["json_schema"]}

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives to tell beside each token; None for no log-probabilities."""
        is_asked = LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
        return (self.top_logprobs or 0) if is_asked else None


class CountBody(Strict):
    """The body of POST /v1/responses/input_tokens."""

    model: str | None = None
    input: Input | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Annotated[str, PlainValidator(_conversation_id)] | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        table: Table = {
            **_RESPONSE_FIELDS,
            "text": (dict,),
            "tools": ([],),
            "tool_choice": ("none", "auto"),
        }
        table = {**table, "parallel_tool_calls": (bool,), "truncation": (str,)}
        return Cleaner(table, own=cls.model_fields.keys()).clean(body)


class ConversationBody(Strict):
    """The body of POST /v1/conversations, and of POST /v1/conversations/{id} without items."""

    items: Items | None = None
    metadata: Metadata | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("items") == []:
            body = {name: value for name, value in body.items() if name != "items"}
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)

    @model_validator(mode="after")
    def _refuse_too_many(self) -> ConversationBody:
        refuse_many_items(self.items or [])
        return self


class ItemsBody(Strict):
    """The body of POST /v1/conversations/{id}/items."""

    items: Items

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)

    @model_validator(mode="after")
    def _refuse_too_many(self) -> ItemsBody:
        refuse_many_items(self.items)
        return self


def refuse_many_items(items: list[Item]) -> None:
    if len(items) > MAX_ITEMS_AT_ONCE:
        raise InvalidRequest(
            f"items has {len(items)} entries; allowed are {MAX_ITEMS_AT_ONCE} at a time",
            param="items",
        )


def starting_after(query: QueryParams) -> int:
    """The number of the last event that the reader has; -1 for none. Raises InvalidRequest."""
    return whole_number(query, "starting_after", -1)
