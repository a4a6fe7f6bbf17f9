"""The service on ZeroGPU, where a GPU is lent for one turn at a time.

Texts, queues and snapshots stay in this process, as in LocalService; each turn runs in a process
that Hugging Face's `spaces` package forks and gives a GPU. Elsewhere the same generator runs
undecorated. https://huggingface.co/docs/hub/spaces-zerogpu
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

from falcon_mamba_app.checkpoint.placement import Placement
from falcon_mamba_app.errors import NotSupported, SettingsError
from falcon_mamba_app.protocol import GenerationEvent, GenerationRequest
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.service.local.startup import Hardware, Loader
from falcon_mamba_app.service.zero_gpu.borrowed_run import (
    LentTurn,
    Report,
    StopSigns,
    TurnRunner,
    limits_of_a_turn,
)
from falcon_mamba_app.service.zero_gpu.worker import LentWorker, RunTurn, loan_s
from falcon_mamba_app.settings import EngineSettings, ModelSettings, Settings

Lend = Callable[[RunTurn], RunTurn]

MAX_AT_A_TIME = 8  # Hugging Face's own queue comes after ours
API_IS_OFF = (
    "this Space runs on ZeroGPU, which lends a GPU to visitors of its page; from a program use"
    " gradio_client and its endpoint /chat"
)


class ZeroGpuService(LocalService):
    """A LocalService whose turns run on lent GPUs, for visitors of the page alone."""

    def __init__(
        self,
        model: ModelSettings,
        engine: EngineSettings,
        *,
        lend: Lend,
        report_start: Callable[[], None] = lambda: None,
        is_visitor: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lend` makes the generator run where a GPU is; `report_start` tells the platform that
        all is loaded; `is_visitor` is asked in the context of a request; `clock` tells turns when
        their time is up.

        Raises as LocalService, and SettingsError for a quantised model.
        """
        self._lend, self._report_start, self._is_visitor = lend, report_start, is_visitor
        self._clock = clock
        max_running = min(engine.max_running or MAX_AT_A_TIME, MAX_AT_A_TIME)
        super().__init__(model, replace(engine, max_running=max_running))
        quantization = self._loader.model_info.quantization
        if quantization is not None:
            raise SettingsError(
                f"this model is quantised ({quantization}); ZeroGPU lends 48 GB and runs it as it"
                " is, so leave --quantization out, or choose the --model it was made from"
            )

    def _rehearse(self, hardware: Hardware, placement: Placement) -> None:
        """The GPU is not here yet."""

    def _make_worker(self, loader: Loader) -> LentWorker:
        signs = StopSigns(self._limits.max_running)
        state_bytes = self._checkpoint.config.state_bytes(loader.dtype.itemsize)
        limits = limits_of_a_turn(self._limits, state_bytes)
        build_engine = partial(loader.build_engine, limits=limits)

        def prepare() -> RunTurn:
            runner = TurnRunner(loader.load_on_host(), build_engine, signs, clock=self._clock)

            def turn(asked: LentTurn) -> Generator[Report, None, None]:
                yield from runner.run(asked)

            lent = self._lend(turn)
            self._report_start()
            return lent

        return LentWorker(
            prepare,
            signs,
            max_running=self._limits.max_running,
            max_snapshot_bytes=self._limits.snapshot_bytes,
            on_events=self._post,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if not self._is_visitor():
            raise NotSupported(API_IS_OFF)
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                yield event


def build_on_zero_gpu(settings: Settings) -> ZeroGpuService:
    """The service with GPUs from `spaces`, which the platform installs.

    It counts on Gradio's launch(), which a server of our own does without: that would report the
    start, and note the port, whose sockets a forked process has to close.
    """
    import spaces
    from gradio.context import LocalContext
    from spaces.zero import startup

    server = SimpleNamespace(config=SimpleNamespace(port=settings.server.port))

    def lend(turn: RunTurn) -> RunTurn:
        lent: RunTurn = spaces.GPU(duration=loan_s)(turn)

        def run(asked: LentTurn) -> Generator[Report, None, None]:
            setattr(LocalContext.blocks.get(), "server", server)  # noqa: B010
            yield from lent(asked)

        return run

    return ZeroGpuService(
        settings.model,
        settings.engine,
        lend=lend,
        report_start=startup,
        is_visitor=lambda: LocalContext.request.get(None) is not None,
    )
