"""`reference/next_token.py` as two Triton kernels of one program; torch needs ten launches."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.next_token import ON_DEVICE
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

_ON_DEVICE = tl.constexpr(ON_DEVICE)


def next_inputs(inputs: Tensor, last_tokens: Tensor) -> Tensor:
    """`Ops.next_inputs`."""
    _check(inputs, last_tokens)
    num_rows, num_slots = inputs.shape[1], last_tokens.shape[1]
    fed = torch.empty((2, num_rows), dtype=torch.int64, device=inputs.device)
    _next_inputs_kernel[(1,)](
        inputs, last_tokens, fed, num_rows, num_slots, _tile(num_rows), **OVERLAPPED
    )
    return fed


def remember_tokens(
    sampled: Tensor, inputs: Tensor, *, live_slots: Tensor, is_eos: Tensor, last_tokens: Tensor
) -> Tensor:
    """`Ops.remember_tokens`."""
    _check(inputs, last_tokens)
    num_rows, num_slots = inputs.shape[1], last_tokens.shape[1]
    _remember_tokens_kernel[(1,)](
        sampled, inputs, live_slots, is_eos, last_tokens, num_rows, num_slots, len(is_eos),
        _tile(num_rows), **OVERLAPPED,
    )  # fmt: skip
    return sampled


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        assert tensor.is_contiguous(), tensor.stride()


def _tile(num_rows: int) -> int:
    """The same tile for all steps of up to 64 rows, so that fewer kernels are compiled."""
    return max(64, triton.next_power_of_2(num_rows))


@triton.jit(do_not_specialize=["num_rows", "num_slots"])
def _next_inputs_kernel(
    inputs_ptr, last_tokens_ptr, fed_ptr, num_rows, num_slots, ROWS: tl.constexpr
):
    start_next()
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    wait_for_inputs()
    tokens = tl.load(inputs_ptr + rows, mask=is_row, other=0.0).to(tl.int64)
    slots = tl.load(inputs_ptr + num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    is_on_device = is_row & (tokens == _ON_DEVICE)
    tokens = tl.load(last_tokens_ptr + slots, mask=is_on_device, other=0) + tl.where(
        is_on_device, 0, tokens
    )
    live_slots = tl.load(last_tokens_ptr + num_slots + slots, mask=is_on_device, other=0)
    tl.store(fed_ptr + rows, tokens, mask=is_row)
    tl.store(fed_ptr + num_rows + rows, tl.where(is_on_device, live_slots, slots), mask=is_row)


@triton.jit(do_not_specialize=["num_rows", "num_slots", "vocab_size"])
def _remember_tokens_kernel(
    sampled_ptr,
    inputs_ptr,
    live_slots_ptr,
    is_eos_ptr,
    last_tokens_ptr,
    num_rows,
    num_slots,
    vocab_size,
    ROWS: tl.constexpr,
):
    start_next()
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    wait_for_inputs()
    tokens = tl.load(sampled_ptr + rows, mask=is_row, other=0)
    tokens = tl.minimum(tl.maximum(tokens, 0), vocab_size - 1)
    slots = tl.load(inputs_ptr + num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    after_eos = tl.load(inputs_ptr + 2 * num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    live_slots = tl.load(live_slots_ptr + rows, mask=is_row, other=0)
    is_eos = tl.load(is_eos_ptr + tokens, mask=is_row, other=0) != 0
    tl.store(last_tokens_ptr + slots, tokens, mask=is_row)
    live_slots = tl.where(is_eos, after_eos, live_slots)
    tl.store(last_tokens_ptr + num_slots + slots, live_slots, mask=is_row)
