"""A GenerationService that is another one; its subclasses change what they name, and no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future

from falcon_mamba_app.protocol import (
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    ServiceStats,
    StateInspection,
    StateLook,
    Tokenizer,
)


class ServiceWrapper:
    """Implements GenerationService by calling `service` for everything."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self._service.tokenizer

    async def start(self) -> None:
        await self._service.start()

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        return self._service.generate(request)

    async def export_state(self, session_id: str, token_ids: Sequence[int] | None = None) -> bytes:
        return await self._service.export_state(session_id, token_ids)

    async def import_state(self, session_id: str, data: bytes) -> int:
        return await self._service.import_state(session_id, data)

    async def publish_state(self, session_id: str) -> int:
        return await self._service.publish_state(session_id)

    async def pin_state(self, session_id: str, token_ids: Sequence[int]) -> int:
        return await self._service.pin_state(session_id, token_ids)

    async def unpin_state(self, session_id: str, token_ids: Sequence[int]) -> None:
        await self._service.unpin_state(session_id, token_ids)

    async def sketch(self, session_id: str) -> str | None:
        return await self._service.sketch(session_id)

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        return await self._service.inspect_state(session_id, look)

    def forget(self, session_id: str) -> Future[bool]:
        return self._service.forget(session_id)

    def stats(self) -> ServiceStats:
        return self._service.stats()

    async def close(self) -> None:
        await self._service.close()
