"""What 4 bits add to loading: what transformers is asked for, and the modules over what it made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.quantization import Quantization
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.ops import bitsandbytes


def refuse_without_library(checkpoint: Checkpoint, device: torch.device) -> None:
    why = bitsandbytes.why_unusable(device)
    if why is not None:
        raise CheckpointError(f"{checkpoint.id}: {why}")


def quantize_while_reading(quantization: Quantization | None, dtype: torch.dtype) -> Any:
    """What transformers is asked for, or None; a checkpoint in 4 bits says it itself."""
    if quantization is None or quantization.is_stored:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.kind,
        bnb_4bit_use_double_quant=quantization.is_double,
        bnb_4bit_compute_dtype=dtype,
    )


def take_over_4bit(model: Any, source: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Put modules over the matrices that `source` holds in 4 bits in place of the unquantised; the
    prefixes of their keys. Raises CheckpointError.
    """
    prefixes = []
    for name, module in source.named_modules():
        try:
            weight = bitsandbytes.weight_of(module)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.id}: {name}: {error}") from error
        if weight is not None:
            model.set_submodule(name, model.get_submodule(name).in_4bit(weight, module.bias))
            prefixes.append(f"{name}.weight")
    return tuple(prefixes)
