"""Loading in 4 bits: the request to transformers, and our modules over the tensors that it made."""

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


def quantize_while_reading(quantization: Quantization | None, dtype: torch.dtype | str) -> Any:
    """The quantisation request to transformers, or None; a checkpoint in 4 bits needs none, and
    transformers has no part in 8 bits.
    """
    if quantization is None or quantization.is_stored or quantization.is_8bit:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.kind,
        bnb_4bit_use_double_quant=quantization.is_double,
        bnb_4bit_compute_dtype=dtype,
    )


def take_over_4bit(model: Any, source: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Replace the modules of matrices that `source` holds in 4 bits by `Linear4bit` over them.
    Returns their names. Raises CheckpointError.
    """
    names = []
    for name, module in source.named_modules():
        try:
            weight = bitsandbytes.weight_of(module)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.id}: {name}: {error}") from error
        if weight is not None:
            model.set_submodule(name, model.get_submodule(name).in_4bit(weight, module.bias))
            names.append(name)
    return names
