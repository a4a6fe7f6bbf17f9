"""The tokenizer over HTTP, in vLLM's shapes: ids of a text or a conversation, and their text.

For evaluators that compare log-probabilities token by token, and for clients that count tokens
before a request.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field, PlainValidator, model_validator
from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.contents import MAX_TOKEN_ID, clean_messages, template_kwargs_of
from falcon_mamba_app.api.fields import Cleaner
from falcon_mamba_app.api.names import ServedNames, ready_model
from falcon_mamba_app.api.planning import conversation_of
from falcon_mamba_app.api.schemas import ChatMessage, Json, Strict, parse_body
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.http.transport import json_response, read_json_body
from falcon_mamba_app.protocol import GenerationService, Prompt, Text, Tokenizer

LIKE_GENERATION = {"add_special_tokens": (True,), "add_generation_prompt": (True,)}


class TokenizeBody(Strict):
    """The body of POST /tokenize: a prompt or messages, as generation takes them."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    chat_template_kwargs: Annotated[Json | None, PlainValidator(template_kwargs_of)] = None
    return_token_strs: bool | None = None

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        # "content" is llama.cpp's name.
        body = {"prompt" if name == "content" else name: body[name] for name in body}
        body = Cleaner(LIKE_GENERATION, own=cls.model_fields.keys()).clean(body)
        if "messages" in body:
            body["messages"] = clean_messages(body["messages"])
        return body

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("send either prompt or messages", param="prompt")
        return self

    @property
    def asked(self) -> Prompt:
        if self.messages is not None:
            given = self.chat_template_kwargs or {}
            return conversation_of(self.messages).with_template_kwargs(given)
        return Text(self.prompt)


class DetokenizeBody(Strict):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]]

    @classmethod
    def cleaned(cls, body: dict[str, Any]) -> dict[str, Any]:
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)


class Tokenization:
    """Tokenise, detokenise, and what the tokenizer is."""

    def __init__(self, service: GenerationService, names: ServedNames) -> None:
        self._service, self._names = service, names

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: how many tokens a prompt has, and which."""
        data = await read_json_body(request)
        body = await asyncio.to_thread(parse_body, TokenizeBody, data)
        tokenizer = self._tokenizer(body.model)
        token_ids = await asyncio.to_thread(tokenizer.encode, body.asked)
        texts = tokenizer.texts(token_ids) if body.return_token_strs else None
        return json_response(
            {
                "count": len(token_ids),
                "max_model_len": ready_model(self._service).max_prompt_tokens,
                "tokens": token_ids,
                "token_strs": texts,
            }
        )

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize: the text of ids."""
        data = await read_json_body(request)
        body = await asyncio.to_thread(parse_body, DetokenizeBody, data)
        tokenizer = self._tokenizer(body.model)
        return json_response({"prompt": await asyncio.to_thread(tokenizer.decode, body.tokens)})

    async def info(self, request: Request) -> Response:
        """GET /tokenizer_info."""
        tokenizer = self._tokenizer(None)
        return json_response(await asyncio.to_thread(tokenizer.describe))

    def _tokenizer(self, name: str | None) -> Tokenizer:
        self._names.answered(ready_model(self._service), name)
        if self._service.tokenizer is None:
            raise NotSupported("the server behind --backend-url tokenises; ask it")
        return self._service.tokenizer
