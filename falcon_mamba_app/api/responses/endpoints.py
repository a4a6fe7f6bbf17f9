"""The endpoints of /v1/responses: create, retrieve, cancel, delete, and the items of the input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.access import Access
from falcon_mamba_app.api.books import BookShelf
from falcon_mamba_app.api.forms import form_of
from falcon_mamba_app.api.listing import PageQuery
from falcon_mamba_app.api.names import ServedNames, ready_model
from falcon_mamba_app.api.planning import refuse_too_many_tokens, sampling_of
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.responses.beginning import (
    before,
    book_under,
    claimed,
    fitting,
    let_go,
    prompt_after,
    whole,
)
from falcon_mamba_app.api.responses.bodies import CountBody, ResponseBody, starting_after
from falcon_mamba_app.api.responses.events import told_again
from falcon_mamba_app.api.responses.items import input_item
from falcon_mamba_app.api.responses.record import Json, Record
from falcon_mamba_app.api.responses.shelf import Owner, Shelves, item_of
from falcon_mamba_app.api.responses.writing import Place, Writing, new_record
from falcon_mamba_app.api.running import counted_for, run_reply
from falcon_mamba_app.errors import InvalidRequest, NotFound, NotSupported, PromptTooLong
from falcon_mamba_app.figures import Figures
from falcon_mamba_app.http.transport import EventStream, json_response, named_sse_event, while_read
from falcon_mamba_app.library import Claim
from falcon_mamba_app.protocol import (
    Conversation,
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    Message,
    ModelInfo,
    SamplingParams,
)

STILL_WORKING = b": working\n\n"


class Responses:
    """Responses over one service and the visitors' shelves."""

    def __init__(
        self,
        service: GenerationService,
        access: Access,
        names: ServedNames,
        figures: Figures,
        shelves: Shelves,
        reader: BodyReader,
        books: BookShelf,
        copy: str | None = None,
    ) -> None:
        """`copy` is this server's name, if it is one of several."""
        self._service, self._access, self._copy, self._books = service, access, copy, books
        self._names, self._figures = names, figures
        self._shelves, self._reader = shelves, reader
        self._writings: dict[tuple[str, str], Writing] = {}  # by owner and response

    async def create(self, request: Request) -> Response:
        """POST /v1/responses."""
        body = await self._reader.read(request, ResponseBody)
        model = ready_model(self._service)
        name = self._names.answered(model, body.model)
        owner = await self._shelves.of(request)
        claim = await claimed(owner, body.conversation)
        try:
            writing = await self._begin(request, body, owner, claim, model=model, name=name)
        except BaseException:
            await let_go(owner, claim)
            raise
        return await self._answer(request, body, writing)

    async def _begin(
        self,
        request: Request,
        body: ResponseBody,
        owner: Owner,
        claim: Claim | None,
        *,
        model: ModelInfo,
        name: str,
    ) -> Writing:
        """The response, which is being written; the claim is let go at its end."""
        await self._writing_of(owner, body.previous_response_id)
        earlier = await before(owner, body)
        place = None
        if body.store is not False:
            place = Place(
                owner,
                earlier.conversation_id,
                earlier.parent_id,
                body.input,
                moves_head=body.conversation is not None,
            )
        sampling = _sampling(body, model)
        book = book_under(body, earlier)
        record = new_record(
            {**_asked(body, sampling), "book": book},
            model=name,
            place=place,
            previous_id=body.previous_response_id,
            copy=self._copy,
        )
        prompt = await prompt_after(owner, earlier, body.input, body.instructions, model=model)
        generation = GenerationRequest(
            prompt=prompt,
            sampling=sampling,
            session_id=record.conversation_id,
            keeps_state=place is not None and owner.shelf.outlives_the_process,
            form=form_of(body.response_format, body.structured_outputs),
        )
        generation = await self._books.request_on(request, generation, book)
        may_reuse = place is not None and body.cache_prompt is not False and book is None
        if may_reuse and isinstance(prompt, Conversation):
            reuse_id = self._access.reuse_id(request, body.cache_salt)
            generation = replace(generation, reuse_id=reuse_id)
        events = self._events(request, body, generation, partial(whole, owner, earlier))
        return self._write(owner, record, events, place, claim)

    async def _events(
        self,
        request: Request,
        body: ResponseBody,
        generation: GenerationRequest,
        whole: Callable[..., Awaitable[list[Message]]],
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The reply's events; of what is too long only the end, where the caller allows that."""
        visitor, key = request.state.visitor, self._access.name_of_key(request)

        def run(asked: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
            return counted_for(key, self._figures, run_reply(self._service, asked, visitor))

        try:
            async with aclosing(run(generation)) as events:
                async for one in events:
                    yield one
            return
        except PromptTooLong:
            if body.truncation != "auto" or generation.begins_from is not None:
                raise
        messages = await whole(body.input, body.instructions)
        shorter = await fitting(messages, self._service.tokenizer)
        async with aclosing(run(replace(generation, prompt=shorter))) as events:
            async for one in events:
                yield one

    def _write(
        self,
        owner: Owner,
        record: Record,
        events: AsyncGenerator[GenerationEvent, None],
        place: Place | None,
        claim: Claim | None,
    ) -> Writing:
        async def over(writing: Writing) -> None:
            self._writings.pop((owner.name, record.id), None)
            await let_go(owner, claim)

        writing = Writing(record, events, place, over)
        if place is not None:
            self._writings[owner.name, record.id] = writing
        return writing

    async def _answer(self, request: Request, body: ResponseBody, writing: Writing) -> Response:
        if body.background:
            if not body.stream:
                return json_response(writing.record.to_json(status="queued"))
            events = writing.follow()
            return EventStream(_lines(events), closes=events)
        try:
            await while_read(request, writing.begun())
            if not body.stream:
                record = await while_read(request, writing.ended())
                if writing.failure is not None:
                    raise writing.failure
                return json_response(record.to_json())
        except BaseException:
            await writing.cancel()
            raise
        events = _until_left(writing)
        return EventStream(_lines(events), closes=events)

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/responses/{response_id}, whole or as a stream."""
        owner = await self._shelves.of(request)
        response_id = request.path_params["response_id"]
        writing = await self._writing_of(owner, response_id)
        record = writing.record if writing else await self._found(owner, response_id)
        if request.query_params.get("stream") not in ("true", "1"):
            return json_response(record.to_json())
        after = starting_after(request.query_params)
        events = writing.follow(after) if writing else told_again(record, after)
        return EventStream(_lines(events), closes=events)

    async def cancel(self, request: Request) -> Response:
        """POST /v1/responses/{response_id}/cancel."""
        owner = await self._shelves.of(request)
        response_id = request.path_params["response_id"]
        writing = await self._writing_of(owner, response_id)
        record = writing.record if writing else await self._found(owner, response_id)
        if not record.is_background:
            raise InvalidRequest(
                "only a response in the background can be cancelled; to end another one, close"
                " its connection"
            )
        if writing is not None:
            record = await writing.cancel()
        return json_response(record.to_json())

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/responses/{response_id}, with what it was asked."""
        owner = await self._shelves.of(request)
        response_id = request.path_params["response_id"]
        writing = await self._writing_of(owner, response_id)
        if writing is not None:
            await writing.cancel()
        record = await self._found(owner, response_id)
        assert record.conversation_id is not None, f"{response_id=} is in no conversation"
        await owner.shelf.remove(
            owner.name, record.conversation_id, [response_id, *reversed(record.input_ids)]
        )
        await asyncio.wrap_future(self._service.forget(record.conversation_id))
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        """GET /v1/responses/{response_id}/input_items."""
        query = PageQuery.of(request.query_params)
        owner = await self._shelves.of(request)
        record = await self._found(owner, request.path_params["response_id"])
        library = owner.shelf.library
        said = [item_of(await library.message(owner.name, one)) for one in record.input_ids]
        items = [input_item(item_id, item.role, list(item.parts)) for item_id, item in said]
        return json_response(query.page(items))

    async def input_tokens(self, request: Request) -> Response:
        """POST /v1/responses/input_tokens: how many tokens a response with this body would read."""
        body = await self._reader.read(request, CountBody)
        model = ready_model(self._service)
        self._names.answered(model, body.model)
        tokenizer = self._service.tokenizer
        if tokenizer is None:
            raise NotSupported("the server behind --backend-url tokenises; ask it")
        owner = await self._shelves.of(request)
        earlier = await before(owner, body)
        if body.input is None:
            raise InvalidRequest("input is missing", param="input")
        prompt = await prompt_after(owner, earlier, body.input, body.instructions, model=model)
        token_ids = await asyncio.to_thread(tokenizer.encode, prompt)
        return json_response({"object": "response.input_tokens", "input_tokens": len(token_ids)})

    async def _writing_of(self, owner: Owner, response_id: str | None) -> Writing | None:
        """The response as it is being written; one that is over is waited for until it is kept."""
        writing = self._writings.get((owner.name, response_id or ""))
        if writing is None or not writing.record.is_over:
            return writing
        await writing.ended()
        return None

    async def settle(self) -> None:
        """Return once no response is being written any more."""
        await asyncio.gather(*(writing.ended() for writing in list(self._writings.values())))

    async def _found(self, owner: Owner, response_id: str) -> Record:
        try:
            return await owner.shelf.get(owner.name, response_id)
        except NotFound:
            raise NotFound(f"Response with id '{response_id[:80]}' not found.") from None


def _sampling(body: ResponseBody, model: ModelInfo) -> SamplingParams:
    refuse_too_many_tokens("max_output_tokens", body.max_output_tokens, model)
    return sampling_of(body, model, body.max_output_tokens, logprobs=body.num_logprobs)


def _asked(body: ResponseBody, sampling: SamplingParams) -> Json:
    """The fields that the answer repeats, as they took effect."""
    names = ("instructions", "max_output_tokens", "background", "truncation", "metadata", "user")
    asked: Json = {name: getattr(body, name) for name in names}
    return {
        **asked,
        "conversation": body.conversation,
        "format": body.format,
        "prompt_cache_key": body.prompt_cache_key,
        "safety_identifier": body.safety_identifier,
        "store": body.store is not False,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_logprobs": body.top_logprobs,
    }


async def _until_left(writing: Writing) -> AsyncGenerator[Json | None, None]:
    """Its events; closing this ends the reply."""
    try:
        async with aclosing(writing.follow()) as events:
            async for one in events:
                yield one
    finally:
        await writing.cancel()


async def _lines(events: AsyncGenerator[Json | None, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for one in events:
            yield STILL_WORKING if one is None else named_sse_event(one["type"], one)
