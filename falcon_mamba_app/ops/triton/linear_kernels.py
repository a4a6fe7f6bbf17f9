"""The kernels of `linear`: one row, or a few, times a matrix in full precision or in 8 bits.

A matrix in 8 bits has scales, and `scale_ptr` is None without them. GROUP is the number of inputs
that share one. If that is all inputs of a row, their sum is scaled; otherwise the weights are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from falcon_mamba_app.ops.triton.overlap import read_ahead, start_next, wait_for_inputs

# PTX runs on NVIDIA's GPUs only; elsewhere the compiler converts.
_HAS_PTX = tl.constexpr(torch.cuda.is_available() and torch.version.hip is None)


@triton.jit
def row_times_matrix_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    y_ptr,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    start_next()
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    weight_ptrs, weight = first_of_row(weight_ptr, outputs, num_inputs, INPUTS)
    wait_for_inputs()
    y = row_product(x_ptr, weight_ptrs, weight, scale_ptr, outputs, num_inputs, GROUP, INPUTS)
    tl.store(y_ptr + outputs, y)


@triton.jit
def first_of_row(weight_ptr, outputs, num_inputs: tl.constexpr, INPUTS: tl.constexpr):
    """The first weights of the outputs, loading while the previous kernel ends; their pointers."""
    inputs = tl.arange(0, INPUTS)
    weight_ptrs = weight_ptr + outputs[:, None].to(tl.int64) * num_inputs + inputs[None, :]
    # The weights are read once per token: leave the cache to the states.
    return weight_ptrs, tl.load(weight_ptrs, eviction_policy="evict_first")


@triton.jit
def row_product(
    x_ptr,
    weight_ptrs,
    weight,
    scale_ptr,
    outputs,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """(outputs,) fp32 of one row, from what `first_of_row` gave."""
    inputs = tl.arange(0, INPUTS)
    weight = _scaled(_as_floats(weight), scale_ptr, outputs, 0, num_inputs, GROUP)
    total = weight * tl.load(x_ptr + inputs).to(tl.float32)[None, :]
    for start in tl.range(INPUTS, num_inputs, INPUTS, loop_unroll_factor=4):
        weight = _as_floats(tl.load(weight_ptrs + start, eviction_policy="evict_first"))
        weight = _scaled(weight, scale_ptr, outputs, start, num_inputs, GROUP)
        total += weight * tl.load(x_ptr + start + inputs).to(tl.float32)[None, :]
    y = tl.sum(total, axis=1)
    if scale_ptr is not None and num_inputs == GROUP:
        y *= tl.load(scale_ptr + outputs)
    return y


@triton.jit
def _as_floats(weight):
    """fp32. A GPU's own conversion of int8 takes as long as eight multiplications. Here a byte,
    moved up by 128, becomes the last bits of 2²³, from which 2²³ + 128 is taken off again.
    """
    if _HAS_PTX and weight.dtype == tl.int8:
        floats = tl.inline_asm_elementwise(
            """{
            .reg .b32 bytes;
            xor.b32 bytes, $4, 0x80808080;
            prmt.b32 $0, bytes, 0x4B000000, 0x7540;
            prmt.b32 $1, bytes, 0x4B000000, 0x7541;
            prmt.b32 $2, bytes, 0x4B000000, 0x7542;
            prmt.b32 $3, bytes, 0x4B000000, 0x7543;
            add.f32 $0, $0, 0fCB000080;
            add.f32 $1, $1, 0fCB000080;
            add.f32 $2, $2, 0fCB000080;
            add.f32 $3, $3, 0fCB000080;
            }""",
            "=&r,=&r,=&r,=&r,r",
            [weight],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )
    else:
        floats = weight.to(tl.float32)
    return floats


@triton.jit
def _scaled(
    weight,
    scale_ptr,
    outputs,
    start,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Weights (o, i) from the input `start` on, by the scales of their groups where a row has
    several; then they are fp32.
    """
    if scale_ptr is not None and num_inputs > GROUP:
        OUTPUTS: tl.constexpr = weight.shape[0]
        GROUPS: tl.constexpr = weight.shape[1] // GROUP
        groups = start // GROUP + tl.arange(0, GROUPS)
        firsts = outputs.to(tl.int64) * (num_inputs // GROUP)
        scale = tl.load(scale_ptr + firsts[:, None] + groups[None, :])
        weight = weight.to(tl.float32).reshape(OUTPUTS, GROUPS, GROUP) * scale[:, :, None]
        weight = weight.reshape(OUTPUTS, GROUPS * GROUP)
    return weight


@triton.jit(do_not_specialize=["num_rows"])
def rows_times_matrix_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    y_ptr,
    num_rows,
    x_stride,
    num_outputs: tl.constexpr,
    num_inputs: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_ADDENDS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One tile of outputs of one addend, which is the product over its share of the inputs."""
    start_next()
    addend = tl.program_id(1)
    length: tl.constexpr = num_inputs // NUM_ADDENDS
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rows = tl.arange(0, ROWS)
    weight_ptrs, weight, first = first_of_rows(
        weight_ptr + addend * length, outputs, num_outputs, num_inputs, length, INPUTS
    )
    wait_for_inputs()
    total = rows_product(
        x_ptr + addend * length, x_stride, num_rows, weight_ptrs, weight, first,
        scale_ptr, tl.minimum(outputs, num_outputs - 1), addend * length,
        num_inputs, length, GROUP, ROWS, INPUTS, STAGES,
    )  # fmt: skip
    cells = (addend * num_rows + rows)[None, :].to(tl.int64) * num_outputs + outputs[:, None]
    mask = (rows < num_rows)[None, :] & (outputs < num_outputs)[:, None]
    tl.store(y_ptr + cells, total, mask=mask)


@triton.jit
def first_of_rows(
    weight_ptr,
    outputs,
    num_outputs: tl.constexpr,
    num_inputs: tl.constexpr,
    length: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """The first weights of the outputs' products over `length` inputs, the pointers to these, and
    the first input. These weights and the next ones load while the previous kernel ends.
    """
    # Past the last output the last one is read again: a mask would prevent wide copies.
    rows = weight_ptr + tl.minimum(outputs, num_outputs - 1).to(tl.int64) * num_inputs
    weight_ptrs = rows[:, None] + tl.arange(0, INPUTS)[None, :]
    # Tiles of outputs begin at different inputs; otherwise all would read the same ones at once.
    first = tl.program_id(0) % (length // INPUTS) * INPUTS
    weight = tl.load(weight_ptrs + first, eviction_policy="evict_first")
    if length > INPUTS:  # one more tile; two gain nothing on an H100 with 64 rows
        ahead = rows + tl.minimum(first + INPUTS, length - INPUTS)
        read_ahead(ahead, INPUTS * weight_ptr.dtype.element_ty.primitive_bitwidth // 8)
    return weight_ptrs, weight, first


@triton.jit
def rows_product(
    x_ptr,
    x_stride,
    num_rows,
    weight_ptrs,
    weight,
    first,
    scale_ptr,
    outputs,
    start_of_length,
    num_inputs: tl.constexpr,
    length: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """(outputs, ROWS) fp32 over the `length` inputs from `start_of_length` on, from what
    `first_of_rows` gave.
    """
    rows = tl.arange(0, ROWS)
    has_row = (rows < num_rows)[None, :]
    x_ptrs = x_ptr + rows[None, :] * x_stride + tl.arange(0, INPUTS)[:, None]
    x = tl.load(x_ptrs + first, mask=has_row, other=0.0)
    weight = _scaled(weight, scale_ptr, outputs, start_of_length + first, num_inputs, GROUP)
    total = tl.dot(weight.to(x.dtype), x)
    for start in tl.range(INPUTS, length, INPUTS, num_stages=STAGES):
        place = first + start
        place = tl.where(place < length, place, place - length)
        weight = tl.load(weight_ptrs + place, eviction_policy="evict_first")
        weight = _scaled(weight, scale_ptr, outputs, start_of_length + place, num_inputs, GROUP)
        x = tl.load(x_ptrs + place, mask=has_row, other=0.0)
        total = tl.dot(weight.to(x.dtype), x, total)
    if scale_ptr is not None and num_inputs == GROUP:
        total *= tl.load(scale_ptr + outputs)[:, None]
    return total
