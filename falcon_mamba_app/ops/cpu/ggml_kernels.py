"""Products with matrices of small whole numbers, which are multiplied where they lie.

The rows of a step are rounded to 16 bits first, with a scale for each BLOCK of inputs: an error of
1/65,534 of the block's largest magnitude, a thirtieth of what bfloat16 would round away. A sum over
a block is then exact, and is scaled once. `kernels` says how the functions are called, and
`reference/weight_ggml` what the matrices mean. A product of `rows` (a tuple of so many elements)
reads each weight once. `form` distinguishes two kinds that differ little: it is None for Q8_0 and
Q4_K, and False for Q4_0 and Q5_K, so numba compiles a kernel for each.
"""

from __future__ import annotations

import numpy as np

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import (
    BFLOAT16,
    FLOAT32,
    INT8,
    ONE,
    OPTIONS,
    ROUNDER,
    ZERO,
    load,
    pointer,
    row_values,
)
from falcon_mamba_app.ops.cpu.vectors import (
    add_eight,
    add_products,
    add_scaled,
    bits,
    eight_zeros,
    float_zeros,
    half,
    int_zeros,
    low_bits,
    minus,
    nibbles,
    plus_times,
    put,
    put_sums,
    signed_bytes,
    times,
    unsigned_bytes,
    word,
)

# No sum of a block's products leaves 32 bits: 16 products of 4,096 (Q6_K's largest) and 32,767.
BLOCK, GROUP, LARGEST = 256, 32, np.float32(32767.0)
SMALLEST_SCALE = np.float32(1e-30)
GROUPS_LOG2 = 3  # of the groups in a block
Q6_K_BYTES = 210
LOW_SIX, LOW_FOUR, HIGH_TWO = (np.uint64(0x01010101 * byte) for byte in (63, 15, 48))
EIGHT_BITS, FOUR_BITS, TWO_BITS, WORD_BITS = (np.uint64(count) for count in (8, 4, 2, 32))
LOW_BYTE = np.uint64(255)


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
            largest, fault = ZERO, ZERO
            for i in range(first, last):
                value = load(xs[i])
                magnitude = -value if value < ZERO else value
                largest = magnitude if magnitude > largest else largest
                fault += value * ZERO
            step = largest / LARGEST
            factor = ONE / step if step > SMALLEST_SCALE else ZERO
            scale[block] = (step if step > SMALLEST_SCALE else ZERO) + fault
            for start in range(first, (block + 1) * BLOCK, GROUP):
                group = ZERO
                for i in range(start, start + GROUP):
                    rounded = (load(xs[i]) if i < last else ZERO) * factor + ROUNDER
                    out[i] = low_bits(rounded)
                    group += rounded - ROUNDER
                total[start // GROUP] = group * scale[block]


@compiled(OPTIONS)
def linear_int8(
    x, scales, sums, weight, row_bytes, factors, num_groups, num_inputs, bias, num_outputs, y, form,
    rows, low, high,
):  # fmt: skip
    """int8 with factors for num_groups groups of inputs: a row, or a multiple of 32."""
    stride, scale_stride = _strides(num_inputs)
    width = num_inputs // num_groups
    num_whole = num_inputs // BLOCK if num_groups == 1 or width % BLOCK == 0 else 0
    results = np.empty(4, np.float32)
    for j in range(low, high):
        factor = row_values(factors, j, num_groups, FLOAT32)
        address, totals = weight + j * row_bytes, float_zeros(rows)
        for block in range(num_whole):
            part = int_zeros(rows)
            for i in range(block * BLOCK, (block + 1) * BLOCK, GROUP):
                part = add_products(part, signed_bytes(address + i), x + 2 * i, stride)
            common = factor[block * BLOCK // width]
            totals = add_scaled(totals, part, scales + 4 * block, scale_stride, common)
        for i in range(num_whole * BLOCK, num_inputs, GROUP):
            part = add_products(int_zeros(rows), signed_bytes(address + i), x + 2 * i, stride)
            place = scales + 4 * (i // BLOCK)
            totals = add_scaled(totals, part, place, scale_stride, factor[i // width])
        put_sums(results.ctypes.data, totals)
        _finish(results, bias, num_outputs, y, rows, j)


@compiled(OPTIONS)
def linear_32(
    x, scales, sums, weight, row_bytes, factors, num_groups, num_inputs, bias, num_outputs, y, form,
    rows, low, high,
):  # fmt: skip
    """Q8_0 and Q4_0: blocks of 32."""
    stride, scale_stride = _strides(num_inputs)
    num_blocks = num_inputs // GROUP
    block_bytes = row_bytes // num_blocks
    results = np.empty(4, np.float32)
    for j in range(low, high):
        totals = float_zeros(rows)
        for i in range(num_blocks):
            address = weight + j * row_bytes + i * block_bytes
            numbers, place = _numbers_32(address, form), scales + 4 * (i >> GROUPS_LOG2)
            part = add_products(int_zeros(rows), numbers, x + 2 * GROUP * i, stride)
            totals = add_scaled(totals, part, place, scale_stride, half(address))
        put_sums(results.ctypes.data, totals)
        _finish(results, bias, num_outputs, y, rows, j)


@compiled(OPTIONS)
def linear_minima(
    x, scales, sums, weight, row_bytes, factors, num_groups, num_inputs, bias, num_outputs, y, form,
    rows, low, high,
):  # fmt: skip
    """Q4_K and Q5_K. What is subtracted needs only the sums of x."""
    stride, scale_stride = _strides(num_inputs)
    num_blocks = num_inputs // BLOCK
    block_bytes = row_bytes // num_blocks
    results, minima = np.empty(4, np.float32), np.empty(4, np.float32)
    for j in range(low, high):
        totals, subtracted = float_zeros(rows), eight_zeros(rows)
        for block in range(num_blocks):
            address = weight + j * row_bytes + block * block_bytes
            inputs = x + 2 * block * BLOCK
            subtracted = add_eight(
                subtracted, _minima(address), half(address + 2), sums + GROUP * block,
                scale_stride * (BLOCK // GROUP),
            )  # fmt: skip
            part, multiples = int_zeros(rows), _multiples(address)
            for i in range(4):
                low_halves, high_halves = _numbers_with_minima(address, form, i)
                first, second = _byte(multiples, 2 * i), _byte(multiples, 2 * i + 1)
                place = inputs + 4 * GROUP * i
                part = add_products(part, times(low_halves, first, first), place, stride)
                place += 2 * GROUP
                part = add_products(part, times(high_halves, second, second), place, stride)
            totals = add_scaled(totals, part, scales + 4 * block, scale_stride, half(address))
        put_sums(results.ctypes.data, totals)
        put_sums(minima.ctypes.data, subtracted)
        for row in range(len(rows)):
            results[row] -= minima[row]
        _finish(results, bias, num_outputs, y, rows, j)


@compiled(OPTIONS)
def linear_q6_k(
    x, scales, sums, weight, row_bytes, factors, num_groups, num_inputs, bias, num_outputs, y, form,
    rows, low, high,
):  # fmt: skip
    stride, scale_stride = _strides(num_inputs)
    num_blocks = num_inputs // BLOCK
    results = np.empty(4, np.float32)
    for j in range(low, high):
        totals = float_zeros(rows)
        for block in range(num_blocks):
            address = weight + j * row_bytes + block * Q6_K_BYTES
            inputs, part = x + 2 * block * BLOCK, int_zeros(rows)
            multiples = pointer(address + 192, INT8)
            for side in range(2):
                for i in range(4):
                    at = 8 * side + 2 * i
                    first, second = np.int64(multiples[at]), np.int64(multiples[at + 1])
                    numbers = times(_numbers_q6_k(address, side, i), first, second)
                    part = add_products(part, numbers, inputs + GROUP * at, stride)
            factor = half(address + 208)
            totals = add_scaled(totals, part, scales + 4 * block, scale_stride, factor)
        put_sums(results.ctypes.data, totals)
        _finish(results, bias, num_outputs, y, rows, j)


# ---- Whole numbers of a group of 32, as they lie ----


@compiled(OPTIONS)
def _numbers_32(address, form):
    if form is None:  # Q8_0
        return signed_bytes(address + 2)
    return minus(nibbles(address + 2), 8)


@compiled(OPTIONS)
def _numbers_with_minima(address, form, i):
    """Groups 2·i and 2·i + 1: they share 32 bytes."""
    if form is None:  # Q4_K
        packed = unsigned_bytes(address + 16 + GROUP * i)
        return bits(packed, 0, 15), bits(packed, 4, 15)
    packed, fifth = unsigned_bytes(address + 48 + GROUP * i), unsigned_bytes(address + 16)
    low = plus_times(bits(packed, 0, 15), bits(fifth, 2 * i, 1), 16)
    return low, plus_times(bits(packed, 4, 15), bits(fifth, 2 * i + 1, 1), 16)


@compiled(OPTIONS)
def _numbers_q6_k(address, side, i):
    """Four groups of a side share 64 bytes of low bits and 32 bytes of high bits."""
    low = unsigned_bytes(address + 64 * side + GROUP * (i & 1))
    low = bits(low, 4 * (i >> 1), 15)
    high = bits(unsigned_bytes(address + 128 + GROUP * side), 2 * i, 3)
    return minus(plus_times(low, high, 16), 32)


@compiled(OPTIONS)
def _multiples(address):
    """The eight factors of a block with minima, each in a byte."""
    low, high = word(address + 4), word(address + 12)
    return low & LOW_SIX | (high & LOW_FOUR | low >> TWO_BITS & HIGH_TWO) << WORD_BITS


@compiled(OPTIONS)
def _minima(address):
    low, high = word(address + 8), word(address + 12)
    return low & LOW_SIX | (high >> FOUR_BITS & LOW_FOUR | low >> TWO_BITS & HIGH_TWO) << WORD_BITS


@compiled(OPTIONS)
def _byte(word, i):
    return np.int64(word >> np.uint64(i) * EIGHT_BITS & LOW_BYTE)


@compiled(OPTIONS)
def _strides(num_inputs):
    """The bytes from one row of activations to the next, and of their scales."""
    num_blocks = -(-num_inputs // BLOCK)
    return num_blocks * BLOCK * 2, num_blocks * 4


@compiled(OPTIONS)
def _finish(results, bias, num_outputs, y, rows, j):
    biases, out = pointer(bias, FLOAT32), pointer(y, FLOAT32)
    start = ZERO if bias == 0 else biases[j]
    for row in range(len(rows)):
        out[row * num_outputs + j] = results[row] + start


# ---- Whole matrices, for prompts ----


@compiled(OPTIONS)
def unpack_32(weight, row_bytes, num_inputs, y, value_bytes, kind, form, low, high):
    num_blocks = num_inputs // GROUP
    block_bytes = row_bytes // num_blocks
    for j in range(low, high):
        for i in range(num_blocks):
            address, place = weight + j * row_bytes + i * block_bytes, j * num_inputs + GROUP * i
            factor, numbers = half(address), _numbers_32(address, form)
            put(y + place * value_bytes, numbers, factor, factor, ZERO, kind)


@compiled(OPTIONS)
def unpack_minima(weight, row_bytes, num_inputs, y, value_bytes, kind, form, low, high):
    num_blocks = num_inputs // BLOCK
    block_bytes = row_bytes // num_blocks
    for j in range(low, high):
        for block in range(num_blocks):
            address = weight + j * row_bytes + block * block_bytes
            factor, minimum = half(address), half(address + 2)
            multiples, minima = _multiples(address), _minima(address)
            for i in range(4):
                place = y + (j * num_inputs + block * BLOCK + 2 * GROUP * i) * value_bytes
                low_halves, high_halves = _numbers_with_minima(address, form, i)
                times_low = factor * np.float32(_byte(multiples, 2 * i))
                less = minimum * np.float32(_byte(minima, 2 * i))
                put(place, low_halves, times_low, times_low, less, kind)
                times_high = factor * np.float32(_byte(multiples, 2 * i + 1))
                less = minimum * np.float32(_byte(minima, 2 * i + 1))
                put(place + GROUP * value_bytes, high_halves, times_high, times_high, less, kind)


@compiled(OPTIONS)
def unpack_q6_k(weight, row_bytes, num_inputs, y, value_bytes, kind, form, low, high):
    for j in range(low, high):
        for block in range(num_inputs // BLOCK):
            address = weight + j * row_bytes + block * Q6_K_BYTES
            multiples, factor = pointer(address + 192, INT8), half(address + 208)
            for side in range(2):
                for i in range(4):
                    at = 8 * side + 2 * i
                    place = y + (j * num_inputs + block * BLOCK + 16 * at) * value_bytes
                    first, second = factor * load(multiples[at]), factor * load(multiples[at + 1])
                    put(place, _numbers_q6_k(address, side, i), first, second, ZERO, kind)
