"""Builds from the settings a LocalService whose replies run on lent GPUs.

Texts, queues and snapshots stay in this process. Each reply runs in a process that Hugging Face's
`spaces` package forks and gives a GPU. Without that package the same generator runs undecorated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

from falcon_mamba_app.checkpoint.placement import Machine
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.service.local.build import placed
from falcon_mamba_app.service.local.kept_states import KeptStates
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.service.local.startup import Startup, grammars_of, read_tokenizer
from falcon_mamba_app.service.zero_gpu.borrowed_run import (
    BorrowedRun,
    Borrower,
    Report,
    StopFlags,
    limits_of_a_run,
)
from falcon_mamba_app.service.zero_gpu.service import PageOnly
from falcon_mamba_app.service.zero_gpu.worker import BorrowingWorker, Perform, loan_s
from falcon_mamba_app.settings import EngineSettings, ModelSettings, Settings
from falcon_mamba_app.settings.sections import AUTO
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.reply_log import ReplyLog

Lend = Callable[[Perform], Perform]

MAX_AT_A_TIME = 8  # Hugging Face's own queue comes after ours


def build_borrowing(
    model: ModelSettings,
    engine: EngineSettings,
    *,
    lend: Lend,
    report_start: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> LocalService:
    """`lend` makes the generator run in a process with a GPU; `report_start` tells the platform
    that everything is loaded; `clock` measures the time of runs.

    Raises as `build_local`, and SettingsError for a quantised model.
    """
    machine = Machine.look(model.device)
    asked = MAX_AT_A_TIME if engine.max_running == AUTO else int(engine.max_running)
    max_running = min(asked, MAX_AT_A_TIME)
    limits = replace(engine, max_running=max_running).on(has_gpu=machine.has_gpu)
    placement = placed(model, limits, machine)
    if placement.quantization is not None:
        raise SettingsError(
            f"this model is quantised ({placement.quantization.describe()}); ZeroGPU lends 48 GB"
            " and runs it as it is, so leave --quantization out, or choose the --model it was made"
            " from"
        )
    reply_log = ReplyLog()
    encoder, defaults = read_tokenizer(placement.checkpoint, reply_log)
    startup = Startup(
        placement,
        defaults,
        limits,
        cannot_chat=encoder.cannot_chat,
        can_continue=encoder.can_continue,
    )
    flags = StopFlags(max_running)
    grammars = grammars_of(startup, encoder)
    worker = BorrowingWorker(
        partial(_prepare, startup, grammars, flags, lend, report_start, clock),
        flags,
        max_running=max_running,
        max_snapshot_bytes=limits.snapshot_bytes,
        max_session_snapshots=limits.session_snapshots,
    )
    # A Space's disk goes with its process, and forks must not share a client of a store.
    kept = KeptStates(None, reply_log)
    return LocalService(startup, encoder, reply_log, worker, limits, grammars, kept)


def _prepare(
    startup: Startup,
    grammars: Grammars,
    flags: StopFlags,
    lend: Lend,
    report_start: Callable[[], None],
    clock: Callable[[], float],
) -> Perform:
    """Load the model into host memory, and return the object that runs replies on a GPU."""
    state_bytes = startup.model_info.state_bytes
    assert state_bytes is not None, "the state's size follows from the configuration"
    limits = limits_of_a_run(startup.limits, state_bytes)
    build_engine = partial(startup.build_engine, limits=limits)
    borrower = Borrower(
        startup.load_on_host(), build_engine, flags, make_matcher=grammars.matcher, clock=clock
    )

    def perform(asked: BorrowedRun) -> Generator[Report, None, None]:
        yield from borrower.run(asked)

    lent = lend(perform)
    report_start()
    return lent


def build_on_zero_gpu(settings: Settings) -> PageOnly:
    """The service with GPUs from `spaces`, which the platform installs.

    `spaces` expects Gradio's launch(), which our own server does not call. launch() would report
    the start and note the port, whose sockets a forked process must close.
    """
    import spaces
    from gradio.context import LocalContext
    from spaces.zero import startup

    server = SimpleNamespace(config=SimpleNamespace(port=settings.server.port))

    def lend(perform: Perform) -> Perform:
        lent: Perform = spaces.GPU(duration=loan_s)(perform)

        def run(asked: BorrowedRun) -> Generator[Report, None, None]:
            setattr(LocalContext.blocks.get(), "server", server)  # noqa: B010
            yield from lent(asked)

        return run

    service = build_borrowing(settings.model, settings.engine, lend=lend, report_start=startup)
    return PageOnly(service, lambda: LocalContext.request.get(None) is not None)
