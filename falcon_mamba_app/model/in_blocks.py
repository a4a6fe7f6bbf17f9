"""Gives a model the matrices of a GGUF file in their own blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from falcon_mamba_app.model.falcon_mamba import NUM_NAMED_ROWS, FalconMamba
from falcon_mamba_app.model.in_8bit import HEAD, TABLE
from falcon_mamba_app.model.linear import EmbeddingPacked, Linear
from falcon_mamba_app.ops.reference.weight_ggml import WeightGgml, rows_of


def put_in_blocks(
    model: FalconMamba, matrices: Mapping[str, WeightGgml], *, dtype: torch.dtype
) -> None:
    """Replace the modules of these names. `dtype`: of activations. A head that is tied comes with
    its table; the other weights must be in place already.
    """
    matrices = dict(matrices)
    if model.config.tie_word_embeddings and TABLE in matrices:
        matrices[HEAD] = matrices[TABLE]
    table = matrices.get(TABLE)
    _name(model, table, matrices.get(HEAD), dtype)
    if table is not None:
        model.backbone.embeddings = EmbeddingPacked(table, dtype, model.ops)
    for name in matrices.keys() - {TABLE}:
        module = model.get_submodule(name)
        assert isinstance(module, Linear), f"{name} is {type(module).__name__}"
        model.set_submodule(name, module.packed(matrices[name]))


def _name(
    model: FalconMamba, table: WeightGgml | None, head: WeightGgml | None, dtype: torch.dtype
) -> None:
    """Set the rows that name the weights, in `dtype` as if they were unpacked."""
    first, last = model.backbone.embeddings.weight, model.lm_head.weight
    if table is not None:
        first = rows_of(table, torch.arange(min(NUM_NAMED_ROWS, len(table.data))), dtype)
    if head is not None:
        count = len(head.data)
        last = rows_of(head, torch.arange(max(0, count - NUM_NAMED_ROWS), count), dtype)
    assert isinstance(first, torch.Tensor) and isinstance(last, torch.Tensor)
    model.named_rows = first[:NUM_NAMED_ROWS], last[-NUM_NAMED_ROWS:]
