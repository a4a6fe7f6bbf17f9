"""Root-mean-square norms as Triton kernels, alone or fused with neighbouring operations.

In a decode step a norm reads 16 KB per row, so the launch takes most of its time. Therefore the
residual's sum is part of the norm after it, and the norms of dt, B and C are one kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs

# Values per program. One row of 4096 fills it; narrow rows, such as B's 16, share it.
NORM_VALUES = 4096
VALUES_OF_A_WARP = 512


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype) -> Tensor:
    """`reference.rms_norm`, one program per row, or per several narrow rows."""
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    x = x.reshape(-1, x.shape[-1])
    assert x.stride(1) == 1, x.stride()
    num_rows, m = x.shape
    rows, columns, num_warps = _tile(m)
    _rms_norm_kernel[(triton.cdiv(num_rows, rows),)](
        x, weight, y, num_rows, x.stride(0), eps, m, rows, columns,
        num_warps=num_warps, **OVERLAPPED,
    )  # fmt: skip
    return y


def add_rms_norm(
    hidden: Tensor, addends: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`Ops.add_rms_norm`, one program for each row."""
    assert hidden.is_contiguous() and addends.is_contiguous(), (hidden.stride(), addends.stride())
    total = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    y = torch.empty(hidden.shape, dtype=out_dtype, device=hidden.device)
    num_addends, num_rows, m = addends.shape
    columns = triton.next_power_of_2(m)
    _add_rms_norm_kernel[(num_rows,)](
        hidden, addends, weight, total, y, num_rows, eps, num_addends, m, columns,
        num_warps=min(8, max(1, columns // VALUES_OF_A_WARP)), **OVERLAPPED,
    )  # fmt: skip
    return total, y


def split_rms_norm(
    addends: Tensor, sizes: list[int], eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """`Ops.split_rms_norm`, the groups as views of one tensor."""
    assert addends.is_contiguous(), addends.stride()
    (num_addends, num_rows, m), (first, second, _) = addends.shape, sizes
    y = torch.empty((num_rows, m), dtype=out_dtype, device=addends.device)
    rows, columns, num_warps = _tile(m)
    _split_rms_norm_kernel[(triton.cdiv(num_rows, rows),)](
        addends, y, num_rows, eps, first, first + second, num_addends, m, rows, columns,
        num_warps=num_warps, **OVERLAPPED,
    )  # fmt: skip
    return y.split(sizes, dim=-1)


def _tile(m: int) -> tuple[int, int, int]:
    """Rows and columns of one program, and its warps; the same for any number of rows, so that
    only one kernel is compiled.
    """
    columns = triton.next_power_of_2(m)
    rows = max(1, NORM_VALUES // columns)
    return rows, columns, min(8, max(1, rows * columns // VALUES_OF_A_WARP))


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_rows,
    x_stride,
    eps,
    m: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    start_next()
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < m)[None, :]
    wait_for_inputs()
    x = tl.load(x_ptr + rows[:, None] * x_stride + columns[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / m + eps)[:, None]
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + columns, mask=columns < m, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + rows[:, None] * m + columns[None, :], y, mask=mask)


@triton.jit(do_not_specialize=["num_rows"])
def _add_rms_norm_kernel(
    hidden_ptr,
    addends_ptr,
    weight_ptr,
    total_ptr,
    y_ptr,
    num_rows,
    eps,
    NUM_ADDENDS: tl.constexpr,
    m: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    start_next()
    columns = tl.arange(0, COLUMNS)
    mask = columns < m
    weight = tl.load(weight_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    cells = tl.program_id(0).to(tl.int64) * m + columns
    wait_for_inputs()
    total = tl.load(hidden_ptr + cells, mask=mask, other=0.0).to(tl.float32)
    total += _sum_of_addends(addends_ptr, cells, mask, num_rows, NUM_ADDENDS, m)
    # Rounded first if the residual stream is not fp32: the norm is of the stored values.
    total = total.to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + cells, total, mask=mask)
    total = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(total * total, axis=0) / m + eps)
    tl.store(y_ptr + cells, total * scale * weight, mask=mask)


@triton.jit(do_not_specialize=["num_rows"])
def _split_rms_norm_kernel(
    addends_ptr,
    y_ptr,
    num_rows,
    eps,
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
    NUM_ADDENDS: tl.constexpr,
    m: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The groups begin at columns 0, SECOND and THIRD."""
    start_next()
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < m)[None, :]
    cells = rows[:, None] * m + columns[None, :]
    is_first, is_third = (columns < SECOND)[None, :], (columns >= THIRD)[None, :]
    wait_for_inputs()
    x = _sum_of_addends(addends_ptr, cells, mask, num_rows, NUM_ADDENDS, m)
    squares = x * x
    first = tl.sum(tl.where(is_first, squares, 0.0), axis=1) / SECOND
    second = tl.sum(tl.where(is_first | is_third, 0.0, squares), axis=1) / (THIRD - SECOND)
    third = tl.sum(tl.where(is_third, squares, 0.0), axis=1) / (m - THIRD)
    mean = tl.where(is_third, third[:, None], second[:, None])
    mean = tl.where(is_first, first[:, None], mean)
    tl.store(y_ptr + cells, x * tl.rsqrt(mean + eps), mask=mask)


@triton.jit
def _sum_of_addends(addends_ptr, cells, mask, num_rows, NUM_ADDENDS: tl.constexpr, m: tl.constexpr):
    """The sum of (NUM_ADDENDS, num_rows, m) at `cells` of (num_rows, m), in a fixed order."""
    total = tl.load(addends_ptr + cells, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(1, NUM_ADDENDS):
        addend = tl.load(addends_ptr + i * num_rows.to(tl.int64) * m + cells, mask=mask, other=0.0)
        total += addend.to(tl.float32)
    return total
