"""in_proj and the convolution behind it as one Triton kernel for the rows of a decode step.

A separate convolution kernel takes twice as long as memory needs for its windows. Here the programs
that compute the tiles of x also convolve them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.matrix import Matrix
from falcon_mamba_app.ops.reference.recurrence import ConvWeights
from falcon_mamba_app.ops.triton.linear import group, is_ours, stored
from falcon_mamba_app.ops.triton.linear_kernels import (
    first_of_row,
    first_of_rows,
    row_product,
    rows_product,
)
from falcon_mamba_app.ops.triton.math import silu
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs
from falcon_mamba_app.ops.triton.tiles import row_tile, rows_tile

# With 2 to 32 rows two kernels are as fast: the convolution's programs fill the GPU sooner than
# half of the fused kernel's programs do. With 64 rows one kernel saves 2 % of a layer.
MIN_ROWS = 33
MAX_TAPS = 4


def is_faster(x: Tensor, weight: Matrix, bias: Tensor | None, conv: ConvWeights) -> bool:
    """Whether the kernels below apply, and are faster than one launch per part."""
    k, d = conv.weight.shape
    # Every tile of outputs belongs to x alone or to z alone.
    fits = is_ours(x, weight, bias) and d % 128 == 0 and k <= MAX_TAPS
    return fits and (len(x) == 1 or len(x) >= MIN_ROWS)


def projected_conv_step(
    x: Tensor, weight: Matrix, conv: ConvWeights, *, conv_states: Tensor, slots: Tensor
) -> tuple[Tensor, Tensor]:
    """`Ops.projected_conv_step` without a bias, where `is_faster`."""
    k, d = conv.weight.shape
    values, scale = stored(weight)
    assert x.stride(1) == 1 and values.is_contiguous() and conv_states.is_contiguous()
    (num_outputs, num_inputs), num_rows = values.shape, len(x)
    y = torch.empty((num_rows, num_outputs), dtype=x.dtype, device=x.device)
    if num_rows == 1:
        row = row_tile(values)
        _in_proj_row_kernel[(num_outputs // row.outputs,)](
            x, values, scale, conv.weight, conv.bias, y, conv_states, slots, num_inputs,
            group(weight), d, k, triton.next_power_of_2(k - 1), row.outputs, row.inputs,
            num_warps=row.warps, **OVERLAPPED,
        )  # fmt: skip
    else:
        rows, tile = rows_tile(x, values, 1)
        _in_proj_rows_kernel[(num_outputs // tile.outputs,)](
            x, values, scale, conv.weight, conv.bias, y, conv_states, slots, num_rows, x.stride(0),
            num_inputs, group(weight), d, k, rows, tile.outputs, tile.inputs, tile.stages,
            num_warps=tile.warps, **OVERLAPPED,
        )  # fmt: skip
    x, z = y.chunk(2, dim=-1)
    return x, z


@triton.jit
def _in_proj_row_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    conv_weight_ptr,
    conv_bias_ptr,
    y_ptr,
    conv_states_ptr,
    slots_ptr,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    d: tl.constexpr,
    k: tl.constexpr,
    WINDOW: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    start_next()
    first = tl.program_id(0) * OUTPUTS
    outputs, places = first + tl.arange(0, OUTPUTS), tl.arange(0, WINDOW)
    has_cell = (places < k - 1)[:, None] & (outputs < d)[None, :]
    cells = places[:, None] * d + outputs[None, :]
    weight_ptrs, weight = first_of_row(weight_ptr, outputs, num_inputs, INPUTS)
    wait_for_inputs()
    window_ptr = conv_states_ptr + tl.load(slots_ptr) * (k - 1) * d
    window = tl.load(window_ptr + cells, mask=has_cell, other=0.0)
    y = row_product(x_ptr, weight_ptrs, weight, scale_ptr, outputs, num_inputs, GROUP, INPUTS).to(
        y_ptr.dtype.element_ty
    )
    if first < d:
        taps = tl.load(conv_weight_ptr + cells, mask=has_cell, other=0.0).to(tl.float32)
        total = tl.sum(taps * window.to(tl.float32), axis=0)
        total += _tap(y, conv_weight_ptr, outputs, k - 1, d)
        if conv_bias_ptr is not None:
            total += tl.load(conv_bias_ptr + outputs).to(tl.float32)
        # All of the window has been read, by this program and by no other.
        tl.debug_barrier()
        tl.store(window_ptr + cells - d, window, mask=has_cell & (places > 0)[:, None])
        tl.store(window_ptr + (k - 2) * d + outputs, y)
        y = silu(total).to(y.dtype)
    tl.store(y_ptr + outputs, y)


@triton.jit(do_not_specialize=["num_rows"])
def _in_proj_rows_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    conv_weight_ptr,
    conv_bias_ptr,
    y_ptr,
    conv_states_ptr,
    slots_ptr,
    num_rows,
    x_stride,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    d: tl.constexpr,
    k: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    start_next()
    first = tl.program_id(0) * OUTPUTS
    outputs, rows = first + tl.arange(0, OUTPUTS), tl.arange(0, ROWS)
    has_row = rows < num_rows
    weight_ptrs, weight, first_input = first_of_rows(
        weight_ptr, outputs, 2 * d, num_inputs, num_inputs, INPUTS
    )
    wait_for_inputs()
    y = rows_product(
        x_ptr, x_stride, num_rows, weight_ptrs, weight, first_input, scale_ptr, outputs, 0,
        num_inputs, num_inputs, GROUP, ROWS, INPUTS, STAGES,
    ).to(y_ptr.dtype.element_ty)  # fmt: skip
    if first < d:
        slots = tl.load(slots_ptr + rows, mask=has_row, other=0)
        windows = conv_states_ptr + (slots * (k - 1) * d)[None, :] + outputs[:, None]
        y = _convolve(
            y, windows, conv_weight_ptr, conv_bias_ptr, outputs[:, None], has_row[None, :], d, k
        )
    cells = rows[None, :].to(tl.int64) * (2 * d) + outputs[:, None]
    tl.store(y_ptr + cells, y, mask=has_row[None, :])


@triton.jit
def _convolve(x, windows, weight_ptr, bias_ptr, channels, mask, d: tl.constexpr, k: tl.constexpr):
    """`conv_step` of x, in x's dtype; `windows` point at the oldest of each one's 1 to 3 inputs."""
    # Unrolled by hand: a load after a store would wait for that store.
    first = tl.load(windows, mask=mask, other=0.0)
    y = _tap(x, weight_ptr, channels, k - 1, d) + _tap(first, weight_ptr, channels, 0, d)
    if k > 2:
        second = tl.load(windows + d, mask=mask, other=0.0)
        y += _tap(second, weight_ptr, channels, 1, d)
    if k > 3:
        third = tl.load(windows + 2 * d, mask=mask, other=0.0)
        y += _tap(third, weight_ptr, channels, 2, d)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + channels).to(tl.float32)
    # All of the windows have been read, by this program and by no other.
    tl.debug_barrier()
    if k > 2:
        tl.store(windows, second, mask=mask)
    if k > 3:
        tl.store(windows + d, third, mask=mask)
    tl.store(windows + (k - 2) * d, x, mask=mask)
    return silu(y).to(x.dtype)


@triton.jit
def _tap(x, weight_ptr, channels, j: tl.constexpr, d: tl.constexpr):
    return x.to(tl.float32) * tl.load(weight_ptr + j * d + channels).to(tl.float32)
