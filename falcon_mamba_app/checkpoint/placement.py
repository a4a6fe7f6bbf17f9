"""Decides once what runs here, and in what form, from the request and the machine.

Only `Machine.look` examines the machine. `decide` uses its result and the checkpoint's small files,
which it fetches if they are on the hub. It loads no weights.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from falcon_mamba_app.checkpoint.asked import Asked, AskedModel
from falcon_mamba_app.checkpoint.gguf.header import read_header
from falcon_mamba_app.checkpoint.gguf.tensors import kinds_of_blocks
from falcon_mamba_app.checkpoint.locate import AUTO, BUNDLED, Checkpoint, locate
from falcon_mamba_app.checkpoint.progress import OnProgress, unheard
from falcon_mamba_app.checkpoint.quantization import Demand, Quantization, agree, what_fits
from falcon_mamba_app.checkpoint.without_gpu import free_host_bytes, published_file
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.bitsandbytes import why_unusable
from falcon_mamba_app.ops.select import select_ops

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
OLDEST_CAPABILITY_WITH_BF16 = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware that this process can use.

    gpu_capability: None without a GPU.  free_gpu_bytes: None if the GPU is lent for single replies
    only, and is absent now.  free_host_bytes: None where the system does not say.
    """

    gpu_capability: tuple[int, int] | None = None
    free_gpu_bytes: int | None = None
    free_host_bytes: int | None = None
    cpu_multiplies_bf16: bool = False

    @property
    def has_gpu(self) -> bool:
        return self.gpu_capability is not None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.has_gpu else "cpu")

    @classmethod
    def look(cls, device: str = AUTO) -> Machine:
        """The machine as it is now; its GPU is ignored if "cpu" was asked for."""
        multiplies_bf16 = _cpu_multiplies_bf16()
        if device == "cpu" or not torch.cuda.is_available():
            return cls(free_host_bytes=free_host_bytes(), cpu_multiplies_bf16=multiplies_bf16)
        return cls(
            gpu_capability=torch.cuda.get_device_capability(),
            free_gpu_bytes=_free_gpu_bytes(),
            cpu_multiplies_bf16=multiplies_bf16,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The needs beside the weights: sequences at a time, prompt tokens read at a time, and copies
    of idle sessions' states that are kept on the device.
    """

    max_running: int
    max_prefill_tokens: int
    num_copies: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """The decision: the model, its form, its device, and the implementation of its operations."""

    checkpoint: Checkpoint
    quantization: Quantization | None
    device: torch.device
    dtype: torch.dtype
    ops: Ops


def decide(
    asked: Asked, room: Room, machine: Machine, on_progress: OnProgress = unheard
) -> Placement:
    """The placement of the request on this machine; each open choice is logged with its reason.
    `on_progress` hears of a download.

    Raises CheckpointError, and SettingsError if this machine or checkpoint cannot meet a request.
    """
    if asked.device == "cuda" and not machine.has_gpu:
        raise SettingsError("`device` cuda: torch finds no CUDA GPU here; use `device` cpu")
    dtype = choose_dtype(asked.dtype, machine)
    checkpoint, quantization = _choose_form(asked, room, machine, dtype, on_progress)
    ops = select_ops(machine.device, asked.kernels)
    return Placement(checkpoint, quantization, machine.device, dtype, ops)


def choose_dtype(dtype: str, machine: Machine) -> torch.dtype:
    """The requested precision; "auto" is bfloat16 if the hardware multiplies it.

    Raises SettingsError for a precision in which the device does not compute.
    """
    if machine.gpu_capability is None:
        if dtype == "float16":
            raise SettingsError("`dtype` float16 needs a GPU; use float32 or bfloat16 on the CPU")
        auto = torch.bfloat16 if machine.cpu_multiplies_bf16 else torch.float32
        return auto if dtype == AUTO else DTYPES[dtype]
    # torch.cuda.is_bf16_supported() counts GPUs that only emulate it.
    has_bf16 = machine.gpu_capability >= OLDEST_CAPABILITY_WITH_BF16
    if dtype == "bfloat16" and not has_bf16:
        major, minor = machine.gpu_capability
        raise SettingsError(
            f"`dtype` bfloat16 needs an Ampere GPU (compute capability 8.0) or newer; this one"
            f" has {major}.{minor}: use float16"
        )
    auto = torch.bfloat16 if has_bf16 else torch.float16
    return auto if dtype == AUTO else DTYPES[dtype]


def _choose_form(
    asked: Asked, room: Room, machine: Machine, dtype: torch.dtype, on_progress: OnProgress
) -> tuple[Checkpoint, Quantization | None]:
    """The quantisation. An open choice depends on a GPU's memory. On a CPU the matrices are
    quantised only on request.
    """
    wanted = _asked_of_machine(asked, machine)
    checkpoint = locate(wanted, has_cuda=machine.has_gpu, on_progress=on_progress)
    if checkpoint.gguf is not None:
        return checkpoint, _form_of_file(checkpoint.gguf, asked, machine)
    agreed = agree(asked, checkpoint.quantization, checkpoint.id)
    is_free = asked.quantization == AUTO and checkpoint.quantization is None
    if machine.free_gpu_bytes is None or not is_free or checkpoint.is_bundled:
        return checkpoint, agreed
    try:
        quantization = _by_memory(checkpoint, room, machine.free_gpu_bytes, dtype)
    except CheckpointError as error:
        if asked.model != AUTO:
            raise
        logger.warning("%s; running the bundled model instead", error)
        return locate(BundledModel(), has_cuda=machine.has_gpu), None
    if quantization is None or quantization.is_8bit or asked.double_quantization != "on":
        return checkpoint, quantization
    return checkpoint, replace(quantization, is_double=True)


def _asked_of_machine(asked: Asked, machine: Machine) -> AskedModel:
    """The requested model, or on a CPU its file in 4 bits where no other form is asked for."""
    if machine.has_gpu or asked.quantization != AUTO:
        return asked
    return published_file(asked, machine.free_host_bytes)


def _form_of_file(path: Path, asked: Asked, machine: Machine) -> Quantization | None:
    """The blocks of a GGUF file on a CPU; None where they are unpacked to `dtype`."""
    kinds = kinds_of_blocks(read_header(path))
    if asked.quantization not in (AUTO, "none"):
        raise SettingsError(
            f"`quantization` {asked.quantization}: {path.name} is packed in its own way"
            f" ({', '.join(kinds) or 'not at all'}); leave the setting out, or use"
            " none to unpack it to `dtype`"
        )
    if machine.has_gpu or asked.quantization == "none" or not kinds:
        return None
    return Quantization(", ".join(kinds), is_stored=True)


@dataclass(frozen=True, slots=True)
class BundledModel:
    """The model that comes with the app."""

    model: str = BUNDLED
    revision: str | None = None


def _by_memory(
    checkpoint: Checkpoint, room: Room, free_bytes: int, dtype: torch.dtype
) -> Quantization | None:
    demand = Demand(
        num_sessions=room.max_running,
        prefill_tokens=room.max_prefill_tokens,
        dtype_bytes=dtype.itemsize,
        num_copies=room.num_copies,
    )
    try:
        quantization, why = what_fits(checkpoint.config, demand, free_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.id}: {error}") from None
    needs_library = quantization is not None and not quantization.is_8bit
    missing = why_unusable(torch.device("cuda")) if needs_library else None
    if missing is not None:
        raise CheckpointError(f"{checkpoint.id} would have to run in {why}; but {missing}")
    logger.info("%s runs %s", checkpoint.id, why)
    return quantization


def _cpu_multiplies_bf16() -> bool:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def _free_gpu_bytes() -> int | None:
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError):
        return None
    return free_bytes if total_bytes else None
