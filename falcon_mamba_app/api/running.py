"""Runs the replies of one plan and merges their events into one stream.

Closing the stream cancels every reply that still runs. Followers start after their leader's first
text, when the state that has read the prompt can be restored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from falcon_mamba_app.api.planning import Plan, PlannedReply
from falcon_mamba_app.figures import Figures
from falcon_mamba_app.metrics import num_tokens_of_work
from falcon_mamba_app.protocol import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    TextDelta,
)
from falcon_mamba_app.visitors import Visitor

MAX_UNREAD_EVENTS = 64  # then the replies wait for the reader
DEFAULT_MAX_PARALLEL = 8  # if the service does not report its limit

ReplyEvent = tuple[PlannedReply, GenerationEvent]


async def run_plan(
    service: GenerationService, plan: Plan, visitor: Visitor
) -> AsyncGenerator[ReplyEvent, None]:
    """The events of all replies, each with the reply it belongs to. Raises the first error,
    TooManyRequests before the first event, and WrongKey once the caller's key has ended.
    """
    with visitor.replies(plan.session_id, len(plan.replies)) as width:
        plan = plan.of_owner(visitor.line(plan.session_id), visitor.weight)
        try:
            if len(plan.replies) == 1:
                reply = plan.replies[0]
                async with aclosing(service.generate(reply.request)) as events:
                    async for event in events:
                        visitor.count_tokens(num_tokens_of_work(event))
                        yield reply, event
            else:
                async with aclosing(_Interleaving(service, plan, width).events()) as merged:
                    async for reply, event in merged:
                        visitor.count_tokens(num_tokens_of_work(event))
                        yield reply, event
        finally:
            if plan.ephemeral_session is not None:
                service.forget(plan.ephemeral_session)


async def run_reply(
    service: GenerationService, request: GenerationRequest, visitor: Visitor
) -> AsyncGenerator[GenerationEvent, None]:
    """The events of one reply that is counted as no session of the visitor's. Raises
    TooManyRequests before the first event, and WrongKey once the caller's key has ended.
    """
    with visitor.replies(None):
        line, weight = visitor.line(request.session_id), visitor.weight * request.weight
        async with aclosing(
            service.generate(replace(request, owner=line, weight=weight))
        ) as events:
            async for event in events:
                visitor.count_tokens(num_tokens_of_work(event))
                yield event


async def counted_for(
    key: str | None, figures: Figures, events: AsyncGenerator[GenerationEvent, None]
) -> AsyncGenerator[GenerationEvent, None]:
    """The same events; their tokens are added to the usage of the caller's key, if there is one."""
    async with aclosing(events):
        async for event in events:
            if key is not None and isinstance(event, Finished):
                figures.key_tokens[key, "prompt"] += event.prompt_tokens or 0
                figures.key_tokens[key, "completion"] += event.completion_tokens
            yield event


class _Interleaving:
    """Several replies at once, `width` at most, and no more than the service has room for."""

    def __init__(self, service: GenerationService, plan: Plan, width: int) -> None:
        self._service = service
        self._replies = plan.replies
        self._queue: asyncio.Queue[ReplyEvent | Exception | None] = asyncio.Queue(MAX_UNREAD_EVENTS)
        room = service.stats().max_running or DEFAULT_MAX_PARALLEL
        self._room = asyncio.Semaphore(min(room, width))
        self._has_spoken = [asyncio.Event() for _ in plan.replies]

    async def events(self) -> AsyncGenerator[ReplyEvent, None]:
        tasks = [asyncio.create_task(self._run(reply)) for reply in self._replies]
        try:
            num_running = len(tasks)
            while num_running:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    num_running -= 1
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, reply: PlannedReply) -> None:
        """Put the reply's events into the queue, then None or the error that ended it."""
        try:
            if reply.follows is not None:
                await self._has_spoken[reply.follows].wait()
            async with self._room, aclosing(self._service.generate(reply.request)) as events:
                async for event in events:
                    await self._queue.put((reply, event))
                    if isinstance(event, TextDelta):
                        self._has_spoken[reply.index].set()
            self._has_spoken[reply.index].set()
            await self._queue.put(None)
        except Exception as error:
            await self._queue.put(error)
