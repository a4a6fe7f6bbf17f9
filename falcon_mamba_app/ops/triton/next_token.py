"""What `carry.py` states, as two Triton kernels of one program: in torch it takes ten launches."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.next_token import ON_DEVICE
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

_ON_DEVICE = tl.constexpr(ON_DEVICE)


def feed(given: Tensor, carried: Tensor) -> Tensor:
    """`carry.feed`."""
    assert given.is_contiguous() and carried.is_contiguous(), (given.stride(), carried.stride())
    num_rows, num_slots = given.shape[1], carried.shape[1]
    fed = torch.empty((2, num_rows), dtype=torch.int64, device=given.device)
    _feed_kernel[(1,)](given, carried, fed, num_rows, num_slots, _tile(num_rows), **OVERLAPPED)
    return fed


def hand_on(
    sampled: Tensor, given: Tensor, live_slots: Tensor, is_eos: Tensor, carried: Tensor
) -> Tensor:
    """`carry.hand_on`."""
    assert given.is_contiguous() and carried.is_contiguous(), (given.stride(), carried.stride())
    num_rows, num_slots = given.shape[1], carried.shape[1]
    _hand_on_kernel[(1,)](
        sampled, given, live_slots, is_eos, carried, num_rows, num_slots, len(is_eos),
        _tile(num_rows), **OVERLAPPED,
    )  # fmt: skip
    return sampled


def _tile(num_rows: int) -> int:
    """The same for all up to 64 rows: a kernel less to compile for each size of a step."""
    return max(64, triton.next_power_of_2(num_rows))


@triton.jit(do_not_specialize=["num_rows", "num_slots"])
def _feed_kernel(given_ptr, carried_ptr, fed_ptr, num_rows, num_slots, ROWS: tl.constexpr):
    start_next()
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    wait_for_inputs()
    tokens = tl.load(given_ptr + rows, mask=is_row, other=0.0).to(tl.int64)
    slots = tl.load(given_ptr + num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    is_carried = is_row & (tokens == _ON_DEVICE)
    tokens = tl.load(carried_ptr + slots, mask=is_carried, other=0) + tl.where(
        is_carried, 0, tokens
    )
    carried = tl.load(carried_ptr + num_slots + slots, mask=is_carried, other=0)
    tl.store(fed_ptr + rows, tokens, mask=is_row)
    tl.store(fed_ptr + num_rows + rows, tl.where(is_carried, carried, slots), mask=is_row)


@triton.jit(do_not_specialize=["num_rows", "num_slots", "vocab_size"])
def _hand_on_kernel(
    sampled_ptr,
    given_ptr,
    live_slots_ptr,
    is_eos_ptr,
    carried_ptr,
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
    slots = tl.load(given_ptr + num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    after_eos = tl.load(given_ptr + 2 * num_rows + rows, mask=is_row, other=0.0).to(tl.int64)
    live_slots = tl.load(live_slots_ptr + rows, mask=is_row, other=0)
    is_eos = tl.load(is_eos_ptr + tokens, mask=is_row, other=0) != 0
    tl.store(carried_ptr + slots, tokens, mask=is_row)
    live_slots = tl.where(is_eos, after_eos, live_slots)
    tl.store(carried_ptr + num_slots + slots, live_slots, mask=is_row)
