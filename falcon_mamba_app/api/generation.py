"""The endpoints that generate: from a checked body to an answer, whole or streamed.

Until the first event a failure is an HTTP status; after it, an event of the stream and its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app import __version__
from falcon_mamba_app.api.access import Access
from falcon_mamba_app.api.answers import AnswerFormat, ChatFormat, CompletionFormat, Json
from falcon_mamba_app.api.anthropic import MessagesAnswer, MessagesBody
from falcon_mamba_app.api.books import BookShelf
from falcon_mamba_app.api.names import ServedNames, ready_model
from falcon_mamba_app.api.planning import Plan, plan_chat, plan_completion, tool_use
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.running import ReplyEvent, run_plan
from falcon_mamba_app.api.schemas import ChatBody, CompletionBody, StreamOptions, parse_body
from falcon_mamba_app.api.telling import Asked
from falcon_mamba_app.api.usage import UsageMeter
from falcon_mamba_app.errors import NotSupported
from falcon_mamba_app.figures import Figures
from falcon_mamba_app.http.errors import error_body, presentable
from falcon_mamba_app.http.transport import (
    EventStream,
    json_response,
    sse_event,
    while_read,
)
from falcon_mamba_app.protocol import (
    Finished,
    GenerationEvent,
    GenerationService,
    ModelInfo,
    PrefillProgress,
    Waiting,
)
from falcon_mamba_app.visitors import Visitor

BODIES: dict[str, type[ChatBody | CompletionBody]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
}
SSE_DONE = b"data: [DONE]\n\n"

# Some clients read every line of a stream as JSON, so comments are sent only in a long silence.
QUIET_S = 2.0


class Answer(Protocol):
    """One answer in progress, in the shape of its endpoint."""

    async def whole(self, events: AsyncGenerator[ReplyEvent, None]) -> Json: ...
    def streamed(
        self, first: ReplyEvent, events: AsyncGenerator[ReplyEvent, None], options: StreamOptions
    ) -> AsyncGenerator[bytes, None]: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the limits, the name under which states are shared, and the key's name."""

    visitor: Visitor
    reuse_id: str | None
    key: str | None


class Generation:
    """Chat and completions over one service."""

    def __init__(
        self,
        service: GenerationService,
        access: Access,
        names: ServedNames,
        figures: Figures,
        reader: BodyReader,
        books: BookShelf,
    ) -> None:
        self._service, self._books = service, books
        self._access = access
        self._names, self._figures = names, figures
        self._reader = reader

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._reader.read(request, ChatBody)
        plan, answer = self._planned(body, request.state.visitor.owner)
        return await self._answer(request, body, plan, answer)

    async def messages(self, request: Request) -> Response:
        """POST /v1/messages, Anthropic's."""
        body = await self._reader.read(request, MessagesBody)
        model = ready_model(self._service)
        name = self._names.answered(model, body.model)
        plan = plan_chat(body, model, self._session_id(request.state.visitor.owner, body))
        answer = MessagesAnswer(name, reads_calls=tool_use(body) is not None)
        return await self._answer(request, body, plan, answer)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._reader.read(request, CompletionBody)
        plan, answer = self._planned(body, request.state.visitor.owner)
        return await self._answer(request, body, plan, answer)

    def caller(self, request: Request) -> Caller:
        """Who has sent the request, for work that outlasts it."""
        reuse_id = self._access.reuse_id(request, None)
        return Caller(request.state.visitor, reuse_id, self._access.name_of_key(request))

    async def in_background(self, caller: Caller, path: str, data: bytes) -> Json:
        """The whole answer to a body of an endpoint, written behind everybody's replies. Raises
        what the endpoint would refuse it with.
        """
        body = await asyncio.to_thread(parse_body, BODIES[path], data)
        if body.book is not None:
            raise NotSupported("requests of a batch cannot stand on a book", param="book")
        plan, answer = self._planned(body, caller.visitor.owner)
        plan = plan.reusing(caller.reuse_id if may_reuse(body) else None).in_background()
        events = run_plan(self._service, plan, caller.visitor)
        return await answer.whole(self._counted(caller.key, events))

    def _planned(self, body: ChatBody | CompletionBody, owner: str) -> tuple[Plan, Answer]:
        """The replies to the body, and the shape of their answer."""
        model = ready_model(self._service)
        name = self._names.answered(model, body.model)
        session_id = self._session_id(owner, body)
        if body.return_tokens_as_token_ids and self._service.tokenizer is None:
            raise NotSupported(
                "return_tokens_as_token_ids is true; the server behind --backend-url does not tell"
                " which ids its tokens have: leave it out",
                param="return_tokens_as_token_ids",
            )
        asked = Asked(
            token_ids=bool(body.return_token_ids),
            prompt_logprobs=body.prompt_logprobs,
            names_by_id=bool(body.return_tokens_as_token_ids),
        )
        if isinstance(body, CompletionBody):
            texts = CompletionFormat(echo=bool(body.echo), logprobs=body.logprobs, asked=asked)
            return plan_completion(body, model, session_id), _Answer(texts, name, model)
        reads_calls = tool_use(body) is not None
        chat = ChatFormat(reads_calls=reads_calls, asked=asked, begun=_begun_in(body))
        return plan_chat(body, model, session_id), _Answer(chat, name, model)

    def _session_id(self, owner: str, body: ChatBody | CompletionBody) -> str | None:
        if body.prompt_cache_key is None:
            return None
        return self._access.session_id(owner, body.prompt_cache_key)

    async def _answer(
        self, request: Request, body: ChatBody | CompletionBody, plan: Plan, answer: Answer
    ) -> Response:
        plan = await self._books.plan_on(request, plan, body.book)
        if may_reuse(body):
            plan = plan.reusing(self._access.reuse_id(request, body.cache_salt))
        key = self._access.name_of_key(request)
        events = self._counted(key, run_plan(self._service, plan, request.state.visitor))
        if not body.stream:
            return json_response(await while_read(request, answer.whole(events)))
        try:
            first = await while_read(request, anext(events))
        except BaseException:
            await events.aclose()
            raise
        options = body.stream_options or StreamOptions()
        return EventStream(answer.streamed(first, events, options), closes=events)

    async def _counted(
        self, key: str | None, events: AsyncGenerator[ReplyEvent, None]
    ) -> AsyncGenerator[ReplyEvent, None]:
        """The same events; their tokens are added to the usage of the caller's key."""
        async with aclosing(events):
            async for reply, event in events:
                if key is not None and isinstance(event, Finished):
                    used = self._figures.key_tokens
                    used[key, "prompt"] += (event.prompt_tokens or 0) * (reply.follows is None)
                    used[key, "completion"] += event.completion_tokens
                yield reply, event


def may_reuse(body: ChatBody | CompletionBody) -> bool:
    """Whether the reply may begin from states of other requests, and leave some."""
    return body.store is not False and body.cache_prompt is not False


def _begun_in(body: ChatBody) -> str:
    """The assistant's words that the reply continues, if they are to stand before it."""
    last = body.messages[-1]
    return last.content if body.echo and last.role == "assistant" else ""


class _Answer:
    """One answer in progress: its envelope, its format and its count of tokens."""

    def __init__(self, shape: AnswerFormat, model_id: str, model: ModelInfo) -> None:
        self._format, self._fingerprint = shape, _fingerprint(model)
        self._usage = UsageMeter()
        self._id = shape.id_prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model_id = model_id
        self._told_s = time.monotonic()  # the time of the last bytes to the reader

    async def whole(self, events: AsyncGenerator[ReplyEvent, None]) -> Json:
        """The answer in one piece, when the last reply has finished."""
        chunks: dict[int, list[Json]] = {}
        async with aclosing(events):
            async for reply, event in events:
                self._usage.add(reply, event)
                chunks.setdefault(reply.index, []).extend(self._format.chunks(reply, event))
        choices = [self._format.join(chunks[index]) for index in sorted(chunks)]
        envelope = self._envelope(self._format.answer_object, choices)
        return {**envelope, "usage": self._usage.usage(), **self._format.beside_choices()}

    async def streamed(
        self, first: ReplyEvent, events: AsyncGenerator[ReplyEvent, None], options: StreamOptions
    ) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        try:
            for part in self._told(first, options):
                yield part
            async for reply_event in events:
                for part in self._told(reply_event, options):
                    yield part
        except Exception as error:
            yield sse_event(error_body(presentable(error)))
            return
        usage = self._usage.usage()
        if options.include_usage and usage is not None:
            yield sse_event({**self._envelope(self._format.chunk_object, []), "usage": usage})
        yield SSE_DONE

    def _told(self, reply_event: ReplyEvent, options: StreamOptions) -> Iterator[bytes]:
        """The stream's events for one event of the service: none, one or several."""
        reply, event = reply_event
        self._usage.add(reply, event)
        now_s = time.monotonic()
        is_quiet = now_s - self._told_s >= QUIET_S
        for choice in self._format.chunks(reply, event):
            chunk = self._envelope(self._format.chunk_object, [choice])
            chunk |= self._format.beside_chunk(choice)
            if options.include_usage:
                is_told = options.continuous_usage_stats
                chunk["usage"] = self._usage.usage() if is_told else None
            self._told_s = now_s
            yield sse_event(chunk)
        if is_quiet and (comment := _comment(event)):
            self._told_s = now_s
            yield comment

    def _envelope(self, object_name: str, choices: list[Json]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": object_name,
            "created": self._created,
            "model": self._model_id,
            "system_fingerprint": self._fingerprint,
            "choices": choices,
        }


def _fingerprint(model: ModelInfo) -> str | None:
    """A name for what decides, beside the request and its seed, what is drawn; None where that is
    not known. It begins as llama.cpp's does.
    """
    if model.device is None:
        return None
    how = (model.id, model.dtype, model.quantization, model.kernels, model.device)
    return f"b{__version__}-{hashlib.sha256(repr(how).encode()).hexdigest()[:10]}"


def _comment(event: GenerationEvent) -> bytes | None:
    """A comment that keeps the connection alive in a long wait; clients ignore it."""
    if isinstance(event, Waiting):
        return b": waiting %d\n\n" % event.position
    if isinstance(event, PrefillProgress):
        return b": prefill %d/%d\n\n" % (event.computed_tokens, event.prompt_tokens)
    return None
