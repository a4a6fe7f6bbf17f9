"""Products with matrices of small whole numbers, which are multiplied where they lie.

The rows of a step are rounded to 16 bits first, with a scale for each BLOCK of inputs: an error of
1/65,534 of the block's largest magnitude, a thirtieth of what bfloat16 would round away. A sum over
a block is then exact, and is scaled once. `kernels` says how the functions are called, and
`reference/weight_ggml` what the matrices mean. A kernel is made for a `form`, as in `ggml_numbers`,
and for `rows` (a tuple of so many elements), for which it reads each weight once. It takes the
address of its arguments, and the outputs low … high, so that a pool of threads can call it.
"""

from __future__ import annotations

import numpy as np

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.ggml_numbers import (
    BLOCK,
    GROUP,
    Q6_K_BYTES,
    byte_of,
    minima_of,
    multiples_of,
    numbers_32,
    numbers_q6_k,
    numbers_with_minima,
)
from falcon_mamba_app.ops.cpu.kernels import (
    BFLOAT16,
    FLOAT32,
    INT8,
    INT64,
    ONE,
    OPTIONS,
    ROUNDER,
    ZERO,
    load,
    pointer,
    row_values,
)
from falcon_mamba_app.ops.cpu.scalars import (
    from_bits,
    low_bits,
    magnitude_bits,
    prefetch,
)
from falcon_mamba_app.ops.cpu.vectors import (
    add_eight,
    add_products,
    add_scaled,
    all_floats,
    eight_zeros,
    float_zeros,
    half_eight,
    half_floats,
    int_zeros,
    plus,
    put_sums,
    signed_bytes,
    times,
)

# No sum of a block's products leaves 32 bits: 16 products of 4,096 (Q6_K's largest) and 32,767.
LARGEST = np.float32(32767.0)
SMALLEST_SCALE = np.float32(1e-30)
GROUPS_LOG2 = 3  # of the groups in a block
# The arguments of a product, one integer each.
(
    X, SCALES, SUMS, WEIGHT, ROW_BYTES, FACTORS, NUM_GROUPS, EXTRA, NUM_INPUTS, BIAS, NUM_OUTPUTS, Y
) = range(12)  # fmt: skip
SET_BYTES = 128  # of them, in whole cache lines
# The matrix is asked for so many bytes ahead: a processor's own guesses end at each page of 4 KB.
LINE, AHEAD, Q4_K_LINES = 64, 2_048, 144
NOTHING = np.uint16(0)


@compiled(OPTIONS)
def prepare(
    scratch, at_a_time, num_sets, x, stride, num_rows, kind, weight, row_bytes, factors, num_groups,
    extra, num_inputs, bias, num_outputs, y,
):  # fmt: skip
    """Round the rows of x, and put down the arguments of a product for each `at_a_time` of them."""
    num_blocks = -(-num_inputs // BLOCK)
    padded = num_sets * at_a_time
    values = scratch + num_sets * SET_BYTES
    scales = values + padded * num_blocks * BLOCK * 2
    sums = scales + padded * num_blocks * 4
    round_rows(x, stride, num_rows, num_inputs, kind, values, scales, sums)
    for number in range(num_sets):
        row, args = number * at_a_time, pointer(scratch + number * SET_BYTES, INT64)
        args[X] = values + row * num_blocks * BLOCK * 2
        args[SCALES] = scales + row * num_blocks * 4
        args[SUMS] = sums + row * num_blocks * (BLOCK // GROUP) * 4
        args[WEIGHT], args[ROW_BYTES] = weight, row_bytes
        args[FACTORS], args[NUM_GROUPS], args[EXTRA] = factors, num_groups, extra
        args[NUM_INPUTS], args[BIAS] = num_inputs, bias
        args[NUM_OUTPUTS], args[Y] = num_outputs, y + row * num_outputs * 4


def scratch_bytes(num_rows: int, num_sets: int, num_inputs: int) -> int:
    """What `prepare` puts down: sets of arguments, and rows of int16 with scales and sums."""
    num_blocks = -(-num_inputs // BLOCK)
    return num_sets * SET_BYTES + num_rows * num_blocks * (BLOCK * 2 + 4 + BLOCK // GROUP * 4)


@compiled(OPTIONS)
def round_rows(x, stride, num_rows, num_inputs, kind, values, scales, sums):
    """Rows of x as int16 (rows, whole blocks), a scale for each block, and the sum of each group of
    32 times its scale, for matrices with minima. Not finite anywhere: the block's scale is NaN.
    """
    num_blocks = -(-num_inputs // BLOCK)
    for row in range(num_rows):
        xs, scale = row_values(x, row, stride, kind), row_values(scales, row, num_blocks, FLOAT32)
        out = row_values(values, row, num_blocks * BLOCK, BFLOAT16)
        total = row_values(sums, row, num_blocks * BLOCK // GROUP, FLOAT32)
        for block in range(num_blocks):
            first, last = block * BLOCK, min((block + 1) * BLOCK, num_inputs)
            largest = np.int32(0)
            for i in range(first, last):
                magnitude = magnitude_bits(load(xs[i]))
                largest = magnitude if magnitude > largest else largest
            step = from_bits(largest) / LARGEST
            factor = ONE / step if step > SMALLEST_SCALE else ZERO
            # Infinity times nothing, or NaN, is NaN.
            fault = from_bits(largest) * ZERO
            scale[block] = (step if step > SMALLEST_SCALE else ZERO) + fault
            for start in range(first, last, GROUP):
                group = np.int32(0)
                for i in range(start, start + GROUP):
                    rounded = low_bits(load(xs[i]) * factor + ROUNDER)
                    out[i] = rounded
                    group += np.int32(np.int16(rounded))
                total[start // GROUP] = np.float32(group) * scale[block]
            for i in range(last, first + BLOCK):
                out[i] = NOTHING
            for i in range(-(-last // GROUP), (first + BLOCK) // GROUP):
                total[i] = ZERO


def linear_int8(form, rows):
    """int8 with factors for num_groups groups of inputs: a row, or a multiple of 32."""

    @compiled(OPTIONS)
    def product(args, low, high):
        x, scales, weight = at(args, X), at(args, SCALES), at(args, WEIGHT)
        factors, num_groups = at(args, FACTORS), at(args, NUM_GROUPS)
        num_inputs = at(args, NUM_INPUTS)
        stride, scale_stride = strides(num_inputs)
        width = num_inputs // num_groups
        num_whole = num_inputs // BLOCK if num_groups == 1 or width % BLOCK == 0 else 0
        results = np.empty(4, np.float32)
        for j in range(low, high):
            factor = row_values(factors, j, num_groups, FLOAT32)
            address, totals = weight + j * num_inputs, float_zeros(rows)
            for block in range(num_whole):
                part = int_zeros(rows)
                for i in range(block * BLOCK, (block + 1) * BLOCK, GROUP):
                    if i % LINE == 0:
                        prefetch(address + i + AHEAD)
                    part = add_products(part, signed_bytes(address + i), x + 2 * i, stride)
                common = all_floats(factor[0 if num_groups == 1 else block * BLOCK // width])
                totals = add_scaled(totals, part, scales + 4 * block, scale_stride, common)
            for i in range(num_whole * BLOCK, num_inputs, GROUP):
                part = add_products(int_zeros(rows), signed_bytes(address + i), x + 2 * i, stride)
                place, common = scales + 4 * (i // BLOCK), all_floats(factor[i // width])
                totals = add_scaled(totals, part, place, scale_stride, common)
            put_sums(results.ctypes.data, totals)
            finish(results, args, rows, j)

    return product


def linear_32(form, rows):
    """Q8_0 and Q4_0: blocks of 32."""

    @compiled(OPTIONS)
    def product(args, low, high):
        x, scales, weight = at(args, X), at(args, SCALES), at(args, WEIGHT)
        num_inputs, row_bytes = at(args, NUM_INPUTS), at(args, ROW_BYTES)
        stride, scale_stride = strides(num_inputs)
        num_blocks = num_inputs // GROUP
        block_bytes = row_bytes // num_blocks
        results = np.empty(4, np.float32)
        for j in range(low, high):
            totals = float_zeros(rows)
            for i in range(num_blocks):
                address = weight + j * row_bytes + i * block_bytes
                prefetch(address + AHEAD)
                numbers, place = numbers_32(address, form), scales + 4 * (i >> GROUPS_LOG2)
                part = add_products(int_zeros(rows), numbers, x + 2 * GROUP * i, stride)
                totals = add_scaled(totals, part, place, scale_stride, half_floats(address))
            put_sums(results.ctypes.data, totals)
            finish(results, args, rows, j)

    return product


def linear_minima(form, rows):
    """Q4_K and Q5_K. What is subtracted needs only the sums of x."""

    @compiled(OPTIONS)
    def product(args, low, high):
        x, scales, weight = at(args, X), at(args, SCALES), at(args, WEIGHT)
        num_inputs, row_bytes, sums = at(args, NUM_INPUTS), at(args, ROW_BYTES), at(args, SUMS)
        stride, scale_stride = strides(num_inputs)
        num_blocks = num_inputs // BLOCK
        block_bytes = row_bytes // num_blocks
        results, minima = np.empty(4, np.float32), np.empty(4, np.float32)
        for j in range(low, high):
            totals, subtracted = float_zeros(rows), eight_zeros(rows)
            for block in range(num_blocks):
                address = weight + j * row_bytes + block * block_bytes
                for line in range(0, Q4_K_LINES, LINE):
                    prefetch(address + AHEAD + line)
                inputs = x + 2 * block * BLOCK
                subtracted = add_eight(
                    subtracted, minima_of(address), half_eight(address + 2), sums + GROUP * block,
                    scale_stride * (BLOCK // GROUP),
                )  # fmt: skip
                multiples = multiples_of(address)
                part, other = int_zeros(rows), int_zeros(rows)
                for i in range(4):
                    low_halves, high_halves = numbers_with_minima(address, form, i)
                    first, second = byte_of(multiples, 2 * i), byte_of(multiples, 2 * i + 1)
                    low_halves = times(low_halves, first, first)
                    high_halves = times(high_halves, second, second)
                    place = inputs + 4 * GROUP * i
                    part = add_products(part, low_halves, place, stride)
                    other = add_products(other, high_halves, place + 2 * GROUP, stride)
                part = plus(part, other)
                factor = half_floats(address)
                totals = add_scaled(totals, part, scales + 4 * block, scale_stride, factor)
            put_sums(results.ctypes.data, totals)
            put_sums(minima.ctypes.data, subtracted)
            for row in range(len(rows)):
                results[row] -= minima[row]
            finish(results, args, rows, j)

    return product


def linear_q6_k(form, rows):
    @compiled(OPTIONS)
    def product(args, low, high):
        x, scales, weight = at(args, X), at(args, SCALES), at(args, WEIGHT)
        num_inputs, row_bytes = at(args, NUM_INPUTS), at(args, ROW_BYTES)
        stride, scale_stride = strides(num_inputs)
        num_blocks = num_inputs // BLOCK
        results = np.empty(4, np.float32)
        for j in range(low, high):
            totals = float_zeros(rows)
            for block in range(num_blocks):
                address = weight + j * row_bytes + block * Q6_K_BYTES
                for line in range(0, Q6_K_BYTES, LINE):
                    prefetch(address + AHEAD + line)
                inputs, part = x + 2 * block * BLOCK, int_zeros(rows)
                multiples = pointer(address + 192, INT8)
                for side in range(2):
                    for i in range(4):
                        pair = 8 * side + 2 * i
                        first, second = np.int64(multiples[pair]), np.int64(multiples[pair + 1])
                        numbers = times(numbers_q6_k(address, side, i), first, second)
                        part = add_products(part, numbers, inputs + GROUP * pair, stride)
                factor = half_floats(address + 208)
                totals = add_scaled(totals, part, scales + 4 * block, scale_stride, factor)
            put_sums(results.ctypes.data, totals)
            finish(results, args, rows, j)

    return product


@compiled(OPTIONS)
def at(args, place):
    return pointer(args, INT64)[place]


@compiled(OPTIONS)
def strides(num_inputs):
    """The bytes from one row of activations to the next, and of their scales."""
    num_blocks = -(-num_inputs // BLOCK)
    return num_blocks * BLOCK * 2, num_blocks * 4


@compiled(OPTIONS)
def finish(results, args, rows, j):
    biases, out = pointer(at(args, BIAS), FLOAT32), pointer(at(args, Y), FLOAT32)
    start = ZERO if at(args, BIAS) == 0 else biases[j]
    for row in range(len(rows)):
        out[row * at(args, NUM_OUTPUTS) + j] = results[row] + start
