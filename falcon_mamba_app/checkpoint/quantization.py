"""Decides whether and how the matrices are quantised, from the request, the files, the memory.

These are pure decisions over numbers; nothing here loads a weight. 8 bits are our own, for every
matrix. By bitsandbytes' own rule 4 bits apply to all matrix products of the layers, but not to the
head and the embedding table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.checkpoint.asked import AskedQuantization
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.model.config import ModelConfig

IN_8BIT = "int8"
KINDS_4BIT = ("nf4", "fp4")
KINDS = (IN_8BIT, *KINDS_4BIT)
COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
# GPU memory that is not counted below: decode graphs, libraries, the allocator's gaps.
RESERVE_BYTES = 500_000_000
# Activations per token and channel while a prompt is read, in bf16.
ACTIVATIONS_PER_CHANNEL = 9


@dataclass(frozen=True, slots=True)
class Quantization:
    """The quantisation of a model's matrices.

    compute_dtype: the dtype of products, by its name in config.json; None: as the activations.
    is_stored: the checkpoint is quantised; otherwise matrices are quantised while they are read.
    """

    kind: str
    is_double: bool = False
    compute_dtype: str | None = None
    is_stored: bool = False

    @property
    def is_4bit(self) -> bool:
        """By bitsandbytes."""
        return self.kind in KINDS_4BIT

    @property
    def is_8bit(self) -> bool:
        return self.kind == IN_8BIT

    def describe(self) -> str:
        """For people: "nf4, double quantisation, products in float32"."""
        parts = [self.kind]
        if self.is_double:
            parts.append("double quantisation")
        if self.compute_dtype is not None:
            parts.append(f"products in {self.compute_dtype}")
        return ", ".join(parts)


def stored_quantization(value: Any, name: str) -> Quantization | None:
    """From `quantization_config` of config.json. Raises CheckpointError for other methods."""
    if value is None:
        return None
    method = value.get("quant_method", "unknown") if isinstance(value, dict) else "unknown"
    kind = value.get("bnb_4bit_quant_type", "fp4") if isinstance(value, dict) else None
    is_4bit = method == "bitsandbytes" and bool(value.get("load_in_4bit"))
    if not is_4bit or kind not in KINDS_4BIT:
        raise CheckpointError(
            f"{name} is quantised ({_form_of(value)}, not to nf4 or fp4); this app runs 4-bit"
            " checkpoints of bitsandbytes and unquantised ones, so use the model it was made from,"
            " with `quantization` int8 for 8 bits"
        )
    dtype = str(value.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
    if dtype not in COMPUTE_DTYPES:
        raise CheckpointError(
            f"{name}: config.json: bnb_4bit_compute_dtype is {dtype[:60]!r}; allowed are "
            + ", ".join(COMPUTE_DTYPES)
        )
    is_double = bool(value.get("bnb_4bit_use_double_quant"))
    return Quantization(kind, is_double, dtype, is_stored=True)


def _form_of(value: Any) -> str:
    """The method by its name in config.json; whether it has 8 bits, where that is said."""
    if not isinstance(value, dict):
        return "by an unknown method"
    method = f"{value.get('quant_method', 'unknown')!s:.40}"
    words = str(value).lower()
    is_8bit = bool(value.get("load_in_8bit")) or "int8" in words or "'num_bits': 8" in words
    return f"{method}, 8 bits" if is_8bit else method


def agree(wish: AskedQuantization, stored: Quantization | None, name: str) -> Quantization | None:
    """The requested quantisation of a checkpoint, where "auto" means that of its files.

    Raises SettingsError if the request contradicts the files.
    """
    asked, double = wish.quantization, wish.double_quantization
    if stored is None:
        is_double = double == "on" and asked in KINDS_4BIT
        return Quantization(asked, is_double) if asked in KINDS else None
    if asked not in ("auto", stored.kind):
        raise SettingsError(
            f"`quantization` {asked}: {name} is stored in {stored.kind} and cannot be turned into"
            f" anything else; use auto or {stored.kind}, or the model it was made from"
        )
    if double not in ("auto", "on" if stored.is_double else "off"):
        raise SettingsError(
            f"`double_quantization` {double}: {name} is stored with it"
            f" {'on' if stored.is_double else 'off'}; leave the setting out"
        )
    return stored


@dataclass(frozen=True, slots=True)
class Demand:
    """The memory that a device needs beside the weights."""

    num_sessions: int
    prefill_tokens: int
    dtype_bytes: int
    num_copies: int = 0  # states of idle sessions with a copy on the device

    def total_bytes(self, config: ModelConfig, quantization: Quantization | None) -> int:
        """The bytes of the weights, the states of all sessions, their copies, the scratch slot and
        a prompt's activations; if quantised also of the one matrix dequantised at a time.
        """
        states = (self.num_sessions + self.num_copies + 1) * config.state_bytes(self.dtype_bytes)
        width = config.d_inner * ACTIVATIONS_PER_CHANNEL * self.dtype_bytes
        dense = 2 * config.d_inner * config.hidden_size * self.dtype_bytes
        weights = weights_bytes(config, quantization, self.dtype_bytes)
        extra = dense if quantization else 0
        return weights + states + self.prefill_tokens * width + extra + RESERVE_BYTES


def weights_bytes(config: ModelConfig, quantization: Quantization | None, dtype_bytes: int) -> int:
    if quantization is None:
        return config.num_parameters() * dtype_bytes
    if quantization.is_8bit:
        return config.bytes_in_8bit(dtype_bytes)
    return config.bytes_in_4bit(dtype_bytes, is_double=quantization.is_double)


def what_fits(
    config: ModelConfig, demand: Demand, free_bytes: int
) -> tuple[Quantization | None, str]:
    """The most exact form that fits into the free memory, and the reason: unquantised, int8, nf4.

    Raises CheckpointError if none fits.
    """
    room = f"with {demand.num_sessions} sessions, and {_gb(free_bytes)} are free"
    too_large: list[tuple[str, str]] = []
    for quantization in (None, Quantization(IN_8BIT), Quantization("nf4")):
        name = quantization.kind if quantization else "unquantised"
        needed = demand.total_bytes(config, quantization)
        if needed <= free_bytes:
            larger = "".join(f"{other} would take {size}, " for other, size in too_large)
            return quantization, f"{name}: {larger}{name} takes {_gb(needed)} {room}"
        too_large.append((name, _gb(needed)))
    raise CheckpointError(
        f"even in {name} this takes {_gb(needed)} {room}; lower `max_running`, or choose a smaller"
        " `model`"
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
