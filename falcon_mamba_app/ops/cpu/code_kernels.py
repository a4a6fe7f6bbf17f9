"""Products with matrices in bitsandbytes' 4 bits, which are multiplied where they lie.

The 16 codes become whole numbers: the error is 1/32,766 of the largest, a hundredth of what
bfloat16 would round away. All else is as in `ggml_kernels`; `reference/weight_4bit` says what the
matrices mean. `form` is None where the magnitudes of blocks are fp32, and False where they are
quantised themselves.
"""

from __future__ import annotations

import numpy as np

from falcon_mamba_app.ops.cpu.code_vectors import coded, table_at
from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.ggml_kernels import (
    AHEAD,
    EXTRA,
    FACTORS,
    NUM_GROUPS,
    NUM_INPUTS,
    SCALES,
    WEIGHT,
    X,
    at,
    finish,
    strides,
)
from falcon_mamba_app.ops.cpu.ggml_numbers import BLOCK, GROUP
from falcon_mamba_app.ops.cpu.kernels import (
    FLOAT32,
    INT8,
    OPTIONS,
    ROUNDER,
    ZERO,
    pointer,
)
from falcon_mamba_app.ops.cpu.scalars import low_bits, prefetch
from falcon_mamba_app.ops.cpu.vectors import (
    add_products,
    add_scaled,
    all_floats,
    float_zeros,
    int_zeros,
    put_sums,
)
from falcon_mamba_app.ops.reference.weight_4bit import NESTED_BLOCK

NUM_CODES = 16
# Summed whole: four products in each of 16 places, so that no sum leaves 32 bits.
SUMMED, LARGEST_CODE = 64, np.float32(16_383.0)
# What EXTRA is the address of: four addresses, of which those after the first are for `form` False.
CODE, NESTED_CODE, NESTED_SCALE, NESTED_OFFSET = range(4)
LOW_BYTE = np.int64(255)


def linear_4bit(form, rows):
    """Rows are whole blocks of a multiple of SUMMED numbers."""

    @compiled(OPTIONS)
    def product(args, low, high):
        x, scales, weight = at(args, X), at(args, SCALES), at(args, WEIGHT)
        num_inputs, num_blocks = at(args, NUM_INPUTS), at(args, NUM_GROUPS)
        magnitudes, extra = at(args, FACTORS), at(args, EXTRA)
        stride, scale_stride = strides(num_inputs)
        width = num_inputs // num_blocks
        numbers, results = np.empty(2 * NUM_CODES, np.uint16), np.empty(4, np.float32)
        unit = whole_codes(at(extra, CODE), numbers)
        table = table_at(numbers.ctypes.data)
        for j in range(low, high):
            totals = float_zeros(rows)
            for block in range(num_blocks):
                number = j * num_blocks + block
                factor = all_floats(magnitude(magnitudes, extra, number, form) * unit)
                for i in range(block * width, (block + 1) * width, SUMMED):
                    address = weight + (j * num_inputs + i) // 2
                    prefetch(address + AHEAD)
                    place = x + 2 * i
                    part = add_products(int_zeros(rows), coded(table, address), place, stride)
                    others = coded(table, address + GROUP // 2)
                    part = add_products(part, others, place + 2 * GROUP, stride)
                    common = scales + 4 * (i // BLOCK)
                    totals = add_scaled(totals, part, common, scale_stride, factor)
            put_sums(results.ctypes.data, totals)
            finish(results, args, rows, j)

    return product


@compiled(OPTIONS)
def whole_codes(code, numbers):
    """The 16 codes as int16, twice; returns what one of these is worth."""
    codes, largest = pointer(code, FLOAT32), ZERO
    for i in range(NUM_CODES):
        largest = max(largest, abs(codes[i]))
    unit = largest / LARGEST_CODE
    for i in range(NUM_CODES):
        whole = ZERO if unit == ZERO else codes[i] / unit
        numbers[i] = low_bits(whole + ROUNDER)
        numbers[NUM_CODES + i] = numbers[i]
    return unit


@compiled(OPTIONS)
def magnitude(magnitudes, extra, number, form):
    """The largest magnitude of a block."""
    if form is None:
        return pointer(magnitudes, FLOAT32)[number]
    name = np.int64(pointer(magnitudes, INT8)[number]) & LOW_BYTE
    scale = pointer(at(extra, NESTED_SCALE), FLOAT32)[number // NESTED_BLOCK]
    offset = pointer(at(extra, NESTED_OFFSET), FLOAT32)[0]
    return pointer(at(extra, NESTED_CODE), FLOAT32)[name] * scale + offset
