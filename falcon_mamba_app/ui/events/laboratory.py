"""The laboratory's routes: its files, what its forms know, and its runs as they go.

A run is one streamed answer. Whoever closes it, or leaves the page, ends the run. Its requests
count for the visitor like replies, and wait in the same line.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, NotFound
from falcon_mamba_app.http.json_bodies import check_values
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.http.transport import (
    EventStream,
    ReaderGone,
    json_response,
    read_json_body,
    sse_event,
)
from falcon_mamba_app.lab import values
from falcon_mamba_app.lab.answers import Plan, answers_of
from falcon_mamba_app.lab.asking import Asker
from falcon_mamba_app.lab.attention import AttentionModel
from falcon_mamba_app.lab.growth import MAX_TOKENS, MAX_WRITTEN, MIN_TOKENS, grow
from falcon_mamba_app.lab.probe import probe
from falcon_mamba_app.lab.texts import chronicle_ids, own_ids, refuse_too_long
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.conversation.begin_turn import sentence_for
from falcon_mamba_app.ui.events.page_files import answer_with
from falcon_mamba_app.ui.view.laboratory import lab_files, shown_attention, shown_facts
from falcon_mamba_app.visitors import visitor_in

MAX_TEXT_CHARS = 4_000_000
MAX_VALUES = 100_000
MAX_PROBE_TOKENS = 131_072  # of one text; overnight there is the command line
MAX_DONE = 15_000
ALIVE_S = 15.0
GONE = 499  # what proxies write for a reader that has left; nobody reads it

Handler = Callable[[Request], Awaitable[Response]]


class Laboratory:
    """What the tab asks for."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        """Offer the routes; to be called before the page is mounted at "/"."""
        for path, handler, method in (
            ("/lab/facts", self.facts, "GET"),
            ("/lab/attention", self.attention, "POST"),
            ("/lab/growth", self.growth, "POST"),
            ("/lab/probe", self.probe, "POST"),
            ("/lab/{name}", self.file, "GET"),
        ):
            app.add_api_route(path, _refusing(handler), methods=[method], include_in_schema=False)

    async def file(self, request: Request) -> Response:
        """The script or the style. Raises NotFound."""
        file = lab_files().get(request.path_params["name"])
        if file is None:
            raise NotFound("there is no such file here")
        return answer_with(file, request)

    async def facts(self, request: Request) -> Response:
        """The model, the limits, and the attention models to compare with. Raises NotReady."""
        asker = self._asker(request)
        return json_response(shown_facts(asker.model))

    async def attention(self, request: Request) -> Response:
        """The line of a cache of any shape. Raises InvalidRequest."""
        return json_response(shown_attention(_attention_of(await _body(request))))

    async def growth(self, request: Request) -> Response:
        """Read a text of some length, and tell what it takes. Raises InvalidRequest."""
        body, asker = await _body(request), self._asker(request)
        num_tokens = values.whole(body, "tokens", MIN_TOKENS, MAX_TOKENS)
        num_written = values.whole(body, "written", 0, MAX_WRITTEN, 0)
        refuse_too_long(num_tokens, asker.model)
        text = values.text(body, "text", MAX_TEXT_CHARS)
        seed = str(values.whole(body, "seed", 0, 2**31 - 1, 0))
        makes, words = (own_ids, text) if text else (chronicle_ids, seed)
        ids = await asyncio.to_thread(makes, asker.tokenizer, asker.model, num_tokens, words)
        return _stream(grow(asker, ids, num_written=num_written))

    async def probe(self, request: Request) -> Response:
        """Hide facts in texts, and ask for those that are not `done`. Raises InvalidRequest."""
        body, asker = await _body(request), self._asker(request)
        plan = Plan.of(body, max_length=MAX_PROBE_TOKENS)
        done = answers_of(values.entries(body, "done", MAX_DONE))
        refuse_too_long(max(plan.lengths), asker.model)
        return _stream(probe(asker, plan, done))

    def _asker(self, request: Request) -> Asker:
        visitor = visitor_in(request.state)
        return Asker(
            self._service,
            line=visitor.line(None),
            weight=visitor.weight,
            holds=lambda: visitor.replies(None),
            counts=visitor.count_tokens,
        )


def _attention_of(body: dict[str, Any]) -> AttentionModel:
    layers = values.whole(body, "layers", 1, 1_000)
    return AttentionModel(
        name=values.text(body, "name", 80, "an attention model"),
        layers=layers,
        kv_heads=values.whole(body, "kv_heads", 1, 1_024),
        head_dim=values.whole(body, "head_dim", 1, 4_096),
        bytes_per_number=values.number(body, "bytes_per_number", 0.25, 8),
        windowed_layers=values.whole(body, "windowed_layers", 0, layers, 0),
        window=values.whole(body, "window", 0, 10_000_000, 0),
    )


async def _body(request: Request) -> dict[str, Any]:
    """A JSON object. Raises InvalidRequest."""
    data = await read_json_body(request)
    await check_values(data, max_values=MAX_VALUES)
    try:
        body = await asyncio.to_thread(json.loads, data)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is no JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body is no JSON object")
    return body


def _stream(events: AsyncGenerator[Any, None]) -> Response:
    """Each event by its kind; the last line tells an error, if there was one. While a run waits, a
    sign of life keeps proxies from closing it.
    """

    async def lines() -> AsyncGenerator[bytes, None]:
        coming: asyncio.Future[Any] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events))
                if not (await asyncio.wait({coming}, timeout=ALIVE_S))[0]:
                    yield b": alive\n\n"
                    continue
                event, coming = coming.result(), None
                yield sse_event({"kind": type(event).__name__.lower(), **asdict(event)})
        except StopAsyncIteration:
            return
        except Exception as error:
            yield sse_event({"kind": "problem", "problem": sentence_for(error)})
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    return EventStream(lines(), closes=events)


def _refusing(handler: Handler) -> Handler:
    """The handler's answer, or its refusal in words."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except FalconMambaError as error:
            return refusal(error, request.url.path)
        except ReaderGone:
            return Response(status_code=GONE)

    return answer
