"""Loading in 8 bits: each matrix is quantised where the files lie mapped in memory.

The host holds no copy of the files, but one matrix where its dtype is converted. The device holds
one matrix beside those that are already quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

import torch
from torch import Tensor

from falcon_mamba_app.checkpoint.host_memory import returning_freed
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.in_8bit import put_in_8bit


def take_over_8bit(
    model: FalconMamba,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    on_progress: Callable[[float, str], None],
) -> frozenset[str]:
    """Replace the modules of `model` that hold a matrix by those of `tensors` in 8 bits, on
    `device`; returns their names.
    """
    on_progress, numbers = returning_freed(on_progress), count()
    num_matrices = 4 * model.config.num_layers + (1 if model.config.tie_word_embeddings else 2)

    def matrix_of(name: str) -> Tensor:
        on_progress(next(numbers) / num_matrices, "quantising weights")
        return tensors[f"{name}.weight"].to(device)

    return put_in_8bit(model, dtype=dtype, matrix_of=matrix_of)
