"""Puts a model into 8 bits: every matrix of the layers, the head, and the table of embeddings.

The matrices are the model's own, or come from elsewhere. They are asked for one at a time, so that
no two need be in full precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from falcon_mamba_app.model.falcon_mamba import NUM_NAMED_ROWS, FalconMamba
from falcon_mamba_app.model.linear import EmbeddingPacked, Linear
from falcon_mamba_app.ops.reference.weight_8bit import quantize

TABLE, HEAD = "backbone.embeddings", "lm_head"


def put_in_8bit(
    model: FalconMamba,
    *,
    dtype: torch.dtype,
    matrix_of: Callable[[str], Tensor] | None = None,
) -> frozenset[str]:
    """Replace the modules that hold a matrix; returns their names.

    `matrix_of` gives the matrix of a module, by its name, on its device; None stands for the
    model's own. It is called once for each, and not for a tied head. `dtype`: of activations.
    """
    matrix_of = matrix_of or partial(_own_matrix, model)
    is_tied = model.config.tie_word_embeddings
    table = matrix_of(TABLE)
    head = table if is_tied else matrix_of(HEAD)
    model.named_rows = table[:NUM_NAMED_ROWS].clone(), head[-NUM_NAMED_ROWS:].clone()
    weight = quantize(table)
    model.backbone.embeddings = EmbeddingPacked(weight, dtype, model.ops)
    if not is_tied:
        del table
        weight = quantize(head)
    del head
    model.lm_head = _linear(model, HEAD).packed(weight)
    names = _names_of_products(model)
    for name in names:
        model.set_submodule(name, _linear(model, name).packed(quantize(matrix_of(name))))
    return frozenset([TABLE, HEAD, *names])


def _own_matrix(model: nn.Module, name: str) -> Tensor:
    matrix = model.get_submodule(name).weight
    assert isinstance(matrix, Tensor), f"{name} is quantised already"
    return matrix.detach()


def _names_of_products(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Linear)]


def _linear(model: nn.Module, name: str) -> Linear:
    module = model.get_submodule(name)
    assert isinstance(module, Linear), f"{name} is {type(module).__name__}"
    return module
