"""Loading one GGUF file: its matrices stay in their blocks, or are unpacked one at a time."""

from __future__ import annotations

from typing import Any

import torch

from falcon_mamba_app.checkpoint.gguf.header import read_header
from falcon_mamba_app.checkpoint.gguf.tensors import read_as_stored, read_tensors
from falcon_mamba_app.checkpoint.locate import Checkpoint
from falcon_mamba_app.checkpoint.progress import OnProgress
from falcon_mamba_app.model.in_blocks import put_in_blocks
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml


def read_gguf(
    model: Any,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    fp32: frozenset[str],
    keeps_blocks: bool,
    on_progress: OnProgress,
) -> None:
    """Give `model` the tensors of one GGUF file, in their blocks or unpacked one at a time;
    those in `fp32` stay in fp32. Raises CheckpointError.
    """
    assert checkpoint.gguf is not None, f"{checkpoint.id} is no GGUF file"
    header = read_header(checkpoint.gguf)
    read, what = (read_as_stored, "reading") if keeps_blocks else (read_tensors, "unpacking")
    weights: dict[str, torch.Tensor] = {}
    blocks: dict[str, WeightGgml] = {}
    tensors = read(header, checkpoint.config, dtype, fp32)
    for number, (name, tensor) in enumerate(tensors):
        if isinstance(tensor, WeightGgml):
            blocks[name.removesuffix(".weight")] = tensor
        else:
            weights[name] = tensor.to(device)
        on_progress(number / len(header.tensors), f"{what} {header.path.name}")
    result = model.load_state_dict(weights, assign=True, strict=False)
    if checkpoint.config.tie_word_embeddings:
        model.lm_head.weight = model.backbone.embeddings.weight
    missing = set(result.missing_keys) - {f"{name}.weight" for name in (*blocks, "lm_head")}
    assert not missing and not result.unexpected_keys, f"{missing} {result.unexpected_keys}"
    if blocks:
        put_in_blocks(model, blocks, dtype=dtype)
