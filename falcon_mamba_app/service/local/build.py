"""Settings → a LocalService whose checkpoint has been found and checked, not started yet."""

from __future__ import annotations

from falcon_mamba_app.checkpoint.placement import Machine, Placement, Room, decide
from falcon_mamba_app.engine.states.pool import num_kept_on_device
from falcon_mamba_app.engine.worker import EngineWorker
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.service.local.startup import (
    Startup,
    begin_rehearsal,
    grammars_of,
    read_tokenizer,
)
from falcon_mamba_app.settings import EngineLimits, EngineSettings, ModelSettings, flags_spelled
from falcon_mamba_app.text.reply_log import ReplyLog


def build_local(model: ModelSettings, engine: EngineSettings) -> LocalService:
    """The model in this process. Raises CheckpointError and SettingsError in one line that says
    what to do.
    """
    machine = Machine.look(model.device)
    limits = engine.on(has_gpu=machine.has_gpu)
    placement = placed(model, limits, machine)
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
    worker = EngineWorker(startup.make_engine)
    return LocalService(startup, encoder, reply_log, worker, limits, grammars_of(startup, encoder))


def placed(model: ModelSettings, limits: EngineLimits, machine: Machine) -> Placement:
    """The placement by the settings on this machine; its errors name the flags."""
    room = Room(
        max_running=limits.max_running,
        max_prefill_tokens=limits.max_prefill_tokens,
        num_copies=num_kept_on_device(limits.max_running),
    )
    with flags_spelled():
        return decide(model, room, machine)
