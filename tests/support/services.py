"""Local services over the bundled model, and how tests read what services send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from falcon_mamba_app.protocol import (
    GenerationEvent,
    GenerationRequest,
    GenerationService,
    TextDelta,
)
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.objects import StateStore
from falcon_mamba_app.state_store.sealing import Seal


def make_local_service(
    *,
    dtype: str = "float32",
    open_files: Callable[[str], StateFiles] | None = None,
    **limits: Any,
) -> LocalService:
    """The bundled model on the CPU; in fp32, where answers are compared with transformers."""
    model = ModelSettings(model="nano", device="cpu", dtype=dtype)
    return build_local(model, EngineSettings(**limits), open_files)


def files_in(store: StateStore) -> Callable[[str], StateFiles]:
    """Opens the stored states of a model there."""
    return lambda model: StateFiles(store, Seal(), model=model, max_bytes=2**30)


async def collect(service: GenerationService, request: GenerationRequest) -> list[GenerationEvent]:
    """All events of one request."""
    async with aclosing(service.generate(request)) as stream:
        return [event async for event in stream]


def reply_text(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def settled(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Return once the condition holds; an AssertionError if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition never came true"
        await asyncio.sleep(0.005)
