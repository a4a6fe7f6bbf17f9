"""The matrix products of the model and its table of embeddings, in full precision or quantised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.reference.matrix import Matrix, Packed
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit


class _Products(nn.Module):
    """The products of one matrix, for modules that hold it."""

    weight: Matrix
    bias: Tensor | None
    _ops: Ops

    def step(self, x: Tensor) -> Tensor:
        """Rows of a decode step (b, inputs) → (b, outputs)."""
        return self._ops.matmul_step(x, self.weight, self.bias)

    def prompt(self, x: Tensor) -> Tensor:
        """Tokens of prompts (t, inputs) → (t, outputs)."""
        return self._ops.matmul_prompt(x, self.weight, self.bias)

    def step_without_bias(self, x: Tensor) -> Tensor:
        return self._ops.matmul_step(x, self.weight, None)

    def prompt_without_bias(self, x: Tensor) -> Tensor:
        return self._ops.matmul_prompt(x, self.weight, None)

    def step_addends(self, x: Tensor) -> Tensor:
        """(b, inputs) → (a, b, outputs); their sum over a is the product."""
        return self._ops.matmul_step_addends(x, self.weight, self.bias)

    def prompt_addends(self, x: Tensor) -> Tensor:
        return self._ops.matmul_prompt_addends(x, self.weight, self.bias)


class Linear(_Products, nn.Linear):
    """A matrix in full precision, named by the checkpoint's keys."""

    weight: nn.Parameter
    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(self, num_inputs: int, num_outputs: int, ops: Ops, *, bias: bool = False) -> None:
        nn.Linear.__init__(self, num_inputs, num_outputs, bias=bias)
        self._ops = ops

    def packed(self, weight: Packed) -> LinearPacked:
        """The module that replaces this one after its matrix is quantised."""
        assert weight.shape == (self.out_features, self.in_features), weight.shape
        return LinearPacked(weight, self.bias, self._ops)

    def in_4bit(self, weight: Weight4bit, bias: Tensor | None) -> Linear4bit:
        """The module that replaces this one after its matrix is quantised."""
        assert weight.shape == (self.out_features, self.in_features), weight.shape
        return Linear4bit(weight, bias, self._ops)


class LinearPacked(_Products):
    """`Linear` with a matrix in 8 bits, or in a GGUF file's blocks."""

    def __init__(self, weight: Packed, bias: nn.Parameter | None, ops: Ops) -> None:
        super().__init__()
        self.weight, self.bias, self._ops = weight, bias, ops


class Linear4bit(nn.Module):
    """`Linear` with a matrix in 4 bits."""

    def __init__(self, weight: Weight4bit, bias: Tensor | None, ops: Ops) -> None:
        super().__init__()
        self.weight, self._ops = weight, ops
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def step(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_step(x, self.weight, self.bias)

    def prompt(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_prompt(x, self.weight, self.bias)

    def step_without_bias(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_step(x, self.weight, None)

    def prompt_without_bias(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_prompt(x, self.weight, None)

    def step_addends(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_step_addends(x, self.weight, self.bias)

    def prompt_addends(self, x: Tensor) -> Tensor:
        return self._ops.matmul_4bit_prompt_addends(x, self.weight, self.bias)


class EmbeddingPacked(nn.Module):
    """`nn.Embedding` with a packed table; its rows come in `dtype`."""

    def __init__(self, weight: Packed, dtype: torch.dtype, ops: Ops) -> None:
        super().__init__()
        self.weight, self._dtype, self._ops = weight, dtype, ops

    def forward(self, token_ids: Tensor) -> Tensor:
        return self._ops.rows_of(self.weight, token_ids, self._dtype)


def weights_bytes(model: nn.Module) -> int:
    """The bytes of all weights in their current form; a tied head counts once."""
    full = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    matrices = {
        id(m.weight): m.weight.nbytes
        for m in model.modules()
        if isinstance(m, Linear4bit | LinearPacked | EmbeddingPacked)
    }
    return full + sum(matrices.values())
