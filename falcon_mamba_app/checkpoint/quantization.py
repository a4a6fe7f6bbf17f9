"""Whether the matrices are held in 4 bits, and how: what was asked, what is stored, what fits.

Pure decisions over numbers; nothing here loads a weight. bitsandbytes' own rule says which matrices
are meant: all products of the layers, not the head, not the embedding table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.checkpoint.asked import AskedQuantization
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.model.config import ModelConfig

KINDS = ("nf4", "fp4")
COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
# Of the device, beside what is counted: decode graphs, libraries, the allocator's gaps.
RESERVE_BYTES = 500_000_000
# While a prompt is read each token has about so many numbers per channel in memory, in bf16.
ACTIVATIONS_PER_CHANNEL = 9


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model's matrices are quantised.

    compute_dtype: what products are taken in, as config.json names it; None: as the activations.
    is_stored: the checkpoint holds them so; otherwise they are quantised while they are read.
    """

    kind: str
    is_double: bool = False
    compute_dtype: str | None = None
    is_stored: bool = False

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
    if not is_4bit or kind not in KINDS:
        raise CheckpointError(
            f"{name} is quantised ({method}, not to nf4 or fp4); this app runs 4-bit checkpoints of"
            " bitsandbytes and unquantised ones, so use the model it was made from"
        )
    dtype = str(value.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
    if dtype not in COMPUTE_DTYPES:
        raise CheckpointError(
            f"{name}: config.json: bnb_4bit_compute_dtype is {dtype[:60]!r}; allowed are "
            + ", ".join(COMPUTE_DTYPES)
        )
    is_double = bool(value.get("bnb_4bit_use_double_quant"))
    return Quantization(kind, is_double, dtype, is_stored=True)


def agree(wish: AskedQuantization, stored: Quantization | None, name: str) -> Quantization | None:
    """What was asked for, of a checkpoint, with "auto" as the checkpoint has it.

    Raises SettingsError where they contradict what is stored.
    """
    asked, double = wish.quantization, wish.double_quantization
    if stored is None:
        return Quantization(asked, double == "on") if asked in KINDS else None
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
    """What a device must have room for beside the weights."""

    num_sessions: int
    prefill_tokens: int
    dtype_bytes: int
    num_copies: int = 0  # of idle sessions' states, kept on the device

    def total_bytes(self, config: ModelConfig, quantization: Quantization | None) -> int:
        """Weights, the states of all sessions, their copies and the scratch slot, and a prompt's
        activations; in 4 bits also the one matrix that is dequantised at a time.
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
    return config.bytes_in_4bit(dtype_bytes, is_double=quantization.is_double)


def what_fits(
    config: ModelConfig, demand: Demand, free_bytes: int
) -> tuple[Quantization | None, str]:
    """The more exact of unquantised and nf4 that the free memory holds, and why.

    Raises CheckpointError where neither fits.
    """
    nf4 = Quantization("nf4")
    full, packed = (_gb(demand.total_bytes(config, kind)) for kind in (None, nf4))
    room = f"with {demand.num_sessions} sessions, and {_gb(free_bytes)} are free"
    if demand.total_bytes(config, None) <= free_bytes:
        return None, f"unquantised: that takes {full} {room}"
    if demand.total_bytes(config, nf4) <= free_bytes:
        return nf4, f"nf4: unquantised would take {full} and nf4 takes {packed} {room}"
    raise CheckpointError(
        f"even in nf4 this takes {packed} {room}; lower `max_running`, or choose a smaller `model`"
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
