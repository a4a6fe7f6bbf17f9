"""Settings → a LocalService whose checkpoint has been found and checked, not started yet."""

from __future__ import annotations

import logging
from collections.abc import Callable

from falcon_mamba_app.checkpoint.placement import Machine, Placement, Room, decide
from falcon_mamba_app.checkpoint.progress import OnProgress, unheard
from falcon_mamba_app.data_folder import AUTO, data_folder
from falcon_mamba_app.engine.states.pool import num_kept_on_device
from falcon_mamba_app.engine.worker import EngineWorker
from falcon_mamba_app.errors import SettingsError, StoreUnavailable
from falcon_mamba_app.service.local.kept_states import IDLE_S, KeptStates
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.service.local.startup import (
    Startup,
    begin_rehearsal,
    grammars_of,
    read_tokenizer,
)
from falcon_mamba_app.settings import (
    EngineLimits,
    EngineSettings,
    ModelSettings,
    Settings,
    flags_spelled,
)
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.objects import open_store
from falcon_mamba_app.state_store.sealing import Seal
from falcon_mamba_app.text.reply_log import ReplyLog

logger = logging.getLogger(__name__)

STATES = "state-store"  # in the folder of what outlives the process


def build_local(
    model: ModelSettings,
    engine: EngineSettings,
    open_files: Callable[[str], StateFiles] | None = None,
    *,
    idle_s: float = IDLE_S,
    on_progress: OnProgress = unheard,
) -> LocalService:
    """The model in this process; with `open_files`, from `state_files`, states outlive it, and are
    written when their session is idle for so long. `on_progress` hears of a download that comes
    first. Raises CheckpointError and SettingsError in one
    line that says what to do.
    """
    machine = Machine.look(model.device)
    limits = engine.on(has_gpu=machine.has_gpu)
    placement = placed(model, limits, machine, on_progress)
    # Before the tokenizer, because the import of its reader takes seconds.
    rehearsal = begin_rehearsal(placement, max_running=limits.max_running)
    reply_log = ReplyLog()
    encoder, defaults = read_tokenizer(placement.checkpoint, reply_log)
    startup = Startup(
        placement,
        defaults,
        limits,
        rehearsal=rehearsal,
        cannot_chat=encoder.cannot_chat,
        can_continue=encoder.can_continue,
    )
    worker, kept = (
        EngineWorker(startup.make_engine),
        KeptStates(open_files, reply_log, idle_s=idle_s),
    )
    return LocalService(
        startup, encoder, reply_log, worker, limits, grammars_of(startup, encoder), kept
    )


def state_files(settings: Settings) -> Callable[[str], StateFiles] | None:
    """Opens the stored states of a model; None where none outlive the process, or none can. Raises
    SettingsError.
    """
    if not settings.keeps_states:
        return None
    storage, secret = settings.storage, settings.server.session_secret
    if storage.encrypt_states and secret is None:
        raise SettingsError("--encrypt-states needs a --session-secret to make its keys from")
    place = storage.state_store
    if place == AUTO:
        place = str(data_folder(settings.library.data_dir) / STATES)
    try:
        store = open_store(place)
    except StoreUnavailable as error:
        logger.warning("%s (%s). Conversations go on in memory", error, place)
        return None
    seal = Seal(secret if storage.encrypt_states else None)
    return lambda model: StateFiles(store, seal, model=model, max_bytes=storage.state_store_bytes)


def placed(
    model: ModelSettings,
    limits: EngineLimits,
    machine: Machine,
    on_progress: OnProgress = unheard,
) -> Placement:
    """The placement by the settings on this machine; its errors name the flags."""
    room = Room(
        max_running=limits.max_running,
        max_prefill_tokens=limits.max_prefill_tokens,
        num_copies=num_kept_on_device(limits.max_running),
    )
    with flags_spelled():
        return decide(model, room, machine, on_progress)
