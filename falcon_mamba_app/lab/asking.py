"""Sends the requests of a run, behind everybody's replies and within the limits of who runs it.

It reads while others write, and gives its place to whoever comes, however long its text is: the
engine keeps its state aside and goes on later. What a limit refuses for the moment is asked again
when it may be: a run of a thousand questions takes longer then, and nobody else notices it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from falcon_mamba_app.errors import NotReady, NotSupported, Overloaded, TooManyRequests
from falcon_mamba_app.metrics import num_tokens_of_work
from falcon_mamba_app.protocol import (
    BACKGROUND_WEIGHT,
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    ModelInfo,
    Tokenizer,
)

RETRY_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A limit refuses the next request for now; it is asked again after `seconds`."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose run it is. `holds` counts one request while it lasts, `counts` its tokens."""

    service: GenerationService
    line: str = ""
    weight: float = 1.0
    holds: Callable[[], AbstractContextManager[object]] = nullcontext
    counts: Callable[[int], None] = lambda num_tokens: None

    @property
    def model(self) -> ModelInfo:
        """Raises NotReady."""
        stats = self.service.stats()
        if stats.model is None or stats.status != "ready":
            raise NotReady("the model is not ready yet; try again")
        return stats.model

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises NotSupported where another server tokenises."""
        if self.service.tokenizer is None:
            raise NotSupported(
                "the laboratory is at the server that has the model; open the one behind"
                " --backend-url"
            )
        return self.service.tokenizer

    async def ask(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent | HeldBack, None]:
        """The events of one request; closing it cancels the request. Raises what a service raises,
        but waits where it was refused for the moment, before its first event.
        """
        weight = BACKGROUND_WEIGHT * self.weight
        request = replace(request, owner=f"laboratory {self.line}", weight=weight)
        while True:
            has_begun = False
            try:
                async with aclosing(self._once(request)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except (TooManyRequests, Overloaded) as error:
                if has_begun:
                    raise
                seconds = RETRY_S if isinstance(error, Overloaded) else float(error.retry_after_s)
                yield HeldBack(str(error), seconds)
                await asyncio.sleep(seconds)

    async def _once(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        with self.holds():
            async with aclosing(self.service.generate(request)) as events:
                async for event in events:
                    self.counts(num_tokens_of_work(event))
                    yield event


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What all of them yield, as it comes. Closing it, or an error in one, closes them all."""
    inbox: asyncio.Queue[T | _End] = asyncio.Queue()

    async def drain(source: AsyncGenerator[T, None]) -> None:
        error: Exception | None = None
        try:
            async with aclosing(source):
                async for item in source:
                    inbox.put_nowait(item)
        except Exception as failure:
            error = failure
        inbox.put_nowait(_End(error))

    tasks = [asyncio.create_task(drain(source)) for source in sources]
    try:
        num_open = len(tasks)
        while num_open:
            item = await inbox.get()
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            num_open -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None
