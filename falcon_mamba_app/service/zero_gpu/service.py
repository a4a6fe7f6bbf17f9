"""The service of the page on ZeroGPU: it lends GPU time to visitors of the page only.

It wraps a service and checks the visitor; `worker` and `borrowed_run` borrow the GPU.
https://huggingface.co/docs/hub/spaces-zerogpu
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing

from falcon_mamba_app.errors import NotSupported
from falcon_mamba_app.protocol import (
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    ServiceStats,
    StateInspection,
    StateLook,
)

API_IS_OFF = (
    "this Space runs on ZeroGPU, which lends a GPU to visitors of its page; from a program use"
    " gradio_client and its endpoint /chat"
)


class PageOnly:
    """Implements GenerationService by `service`, for visitors of the page only.

    `is_visitor` is called in the context of a request.
    """

    def __init__(self, service: GenerationService, is_visitor: Callable[[], bool]) -> None:
        self._service, self._is_visitor = service, is_visitor
        self.tokenizer = service.tokenizer

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if not self._is_visitor():
            raise NotSupported(API_IS_OFF)
        async with aclosing(self._service.generate(request)) as events:
            async for event in events:
                yield event

    async def start(self) -> None:
        await self._service.start()

    async def export_state(self, session_id: str, token_ids: Sequence[int] | None = None) -> bytes:
        return await self._service.export_state(session_id, token_ids)

    async def import_state(self, session_id: str, data: bytes) -> int:
        return await self._service.import_state(session_id, data)

    async def sketch(self, session_id: str) -> str | None:
        return await self._service.sketch(session_id)

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        return await self._service.inspect_state(session_id, look)

    async def publish_state(self, session_id: str) -> int:
        return await self._service.publish_state(session_id)

    async def pin_state(self, session_id: str, token_ids: Sequence[int]) -> int:
        return await self._service.pin_state(session_id, token_ids)

    async def unpin_state(self, session_id: str, token_ids: Sequence[int]) -> None:
        await self._service.unpin_state(session_id, token_ids)

    def forget(self, session_id: str) -> Future[bool]:
        return self._service.forget(session_id)

    def stats(self) -> ServiceStats:
        return self._service.stats()

    async def close(self) -> None:
        await self._service.close()
