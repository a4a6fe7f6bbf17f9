"""Reads plain safetensors files without transformers, whose import takes 3 s of a start.

Plain are files whose tensors have exactly the names and shapes of the model's, none missing and
none besides: then there is nothing to decide. All others are transformers' to read or to refuse.
This module knows no quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from safetensors import safe_open
from torch import Tensor

from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.progress import OnProgress


def read_plain(
    checkpoint: Checkpoint,
    expected: Mapping[str, Tensor],
    *,
    dtype_of: Callable[[str], torch.dtype | None],
    on_progress: OnProgress,
) -> dict[str, Tensor] | None:
    """The tensors of the files on the CPU, by name; None if they are not exactly those of
    `expected` by name and shape. A head that config.json ties must not be there.

    `dtype_of` gives a tensor's dtype, None for that of the file. What needs no other dtype stays
    mapped from the file.
    """
    names = set(expected)
    if checkpoint.config.tie_word_embeddings:
        names.remove("lm_head.weight")
    with ExitStack() as opened:
        places = {}
        num_stored = 0
        for file_name in checkpoint.weight_files:
            file = opened.enter_context(safe_open(checkpoint.folder / file_name, framework="pt"))
            places.update(dict.fromkeys(file.keys(), file))
            num_stored += len(file.keys())
        if num_stored != len(places) or places.keys() != names:
            return None
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key, file in places.items()}
        if any(shape != tuple(expected[key].shape) for key, shape in shapes.items()):
            return None
        tensors: dict[str, Tensor] = {}
        for key, file in places.items():
            on_progress(len(tensors) / len(places), "reading weights")
            tensors[key] = file.get_tensor(key).to(dtype_of(key))
        return tensors
