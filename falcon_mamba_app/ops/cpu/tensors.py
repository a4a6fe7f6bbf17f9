"""What a kernel is told of a tensor: its storage type, its address, its rows' distance."""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu.kernels import BFLOAT16, FLOAT32

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}


def row_stride(x: Tensor) -> int:
    row, column = x.stride()
    assert column == 1, f"the channels of a row must lie together, strides are {x.stride()}"
    return row


def address_of(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def check(*tensors: Tensor) -> None:
    """Assert that tensors which the kernels read without strides are contiguous."""
    for tensor in tensors:
        assert tensor.is_contiguous(), f"strides are {tensor.stride()}"
