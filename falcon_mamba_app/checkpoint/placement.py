"""Which model a machine gets, and in how many bits: from the settings and the free memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from falcon_mamba_app.checkpoint.locate import BUNDLED, Checkpoint, locate
from falcon_mamba_app.checkpoint.quantization import Demand, Quantization, agree, what_fits
from falcon_mamba_app.checkpoint.weights import choose_dtype
from falcon_mamba_app.engine.states.pool import num_kept_on_device
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.ops.bitsandbytes import why_unusable
from falcon_mamba_app.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """What is loaded, and in what form."""

    checkpoint: Checkpoint
    quantization: Quantization | None


def place(model: ModelSettings, limits: EngineSettings, *, has_cuda: bool) -> Placement:
    """What the settings mean on this machine; the choice is logged with its reason.

    Only what is left to choose depends on the memory, and only a GPU's: on the CPU 4 bits save
    memory at the price of speed, so they have to be asked for. Raises CheckpointError,
    SettingsError.
    """
    checkpoint = locate(model, has_cuda=has_cuda)
    agreed = agree(model, checkpoint.quantization, checkpoint.id)
    is_free = model.quantization == "auto" and checkpoint.quantization is None
    if not (has_cuda and is_free) or checkpoint.is_bundled:
        return Placement(checkpoint, agreed)
    try:
        return _by_memory(checkpoint, model, limits)
    except CheckpointError as error:
        if model.model != "auto":
            raise
        logger.warning("%s; running the bundled model instead", error)
        return Placement(locate(replace(model, model=BUNDLED), has_cuda=has_cuda), None)


def _by_memory(checkpoint: Checkpoint, model: ModelSettings, limits: EngineSettings) -> Placement:
    device = torch.device("cuda")
    demand = Demand(
        num_sessions=limits.max_running,
        prefill_tokens=limits.max_prefill_tokens,
        dtype_bytes=choose_dtype(model.dtype, device).itemsize,
        num_copies=num_kept_on_device(limits.max_running),
    )
    free_bytes = _free_bytes()
    if free_bytes is None:
        return Placement(checkpoint, None)
    try:
        quantization, why = what_fits(checkpoint.config, demand, free_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.id}: {error}") from None
    missing = why_unusable(device) if quantization else None
    if missing is not None:
        raise CheckpointError(f"{checkpoint.id} would have to run in {why}; but {missing}")
    if quantization is not None and model.double_quantization == "on":
        quantization = replace(quantization, is_double=True)
    logger.info("%s runs %s", checkpoint.id, why)
    return Placement(checkpoint, quantization)


def _free_bytes() -> int | None:
    """Of the GPU; None where it is lent for single turns only, and is not here now."""
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError):
        return None
    return free_bytes if total_bytes else None
