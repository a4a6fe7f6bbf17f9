"""Products of a step's rows with a matrix in full precision, on LLVM's own vectors.

A sum has sixteen parts, of every sixteenth input each, for any number of rows: so a row's result is
the same, bit for bit, in any batch. Each weight leaves memory once, and is multiplied by all rows.
`kernels` says how the functions are called. A product takes the address of its arguments and the
outputs low … high, so that a pool of threads can call it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import (
    FLOAT32,
    INT64,
    OPTIONS,
    ZERO,
    bytes_of,
    intrinsic,
    load,
    pointer,
    row_values,
    store,
)
from falcon_mamba_app.ops.cpu.llvm import FLOAT, INT, SHORT, fused, load_at, row_address
from falcon_mamba_app.ops.cpu.scalars import prefetch
from falcon_mamba_app.ops.cpu.vectors import FLOATS, float_zeros, put_sums

LANES, FLOAT_BYTES = 16, 4
# The matrix is asked for so many bytes ahead: a processor's own guesses end at each page of 4 KB.
AHEAD = 2_048
# The arguments of a product, one integer each. The rows of x are fp32 and lie together.
X, WEIGHT, BIAS, NUM_ROWS, NUM_INPUTS, NUM_OUTPUTS, Y = range(7)
ARGUMENT_BYTES = 64
ONE_ROW, TWO_ROWS, FOUR_ROWS = ((0,) * count for count in (1, 2, 4))


@intrinsic
def sixteen(typingctx, address, kind):
    """16 stored values at an address, as FLOATS."""

    def codegen(context, builder, signature, args):
        if isinstance(kind, types.Float):
            return load_at(builder, args[0], FLOATS.llvm)
        words = ir.VectorType(INT, LANES)
        bits = builder.zext(load_at(builder, args[0], ir.VectorType(SHORT, LANES)), words)
        bits = builder.shl(bits, ir.Constant(words, [16] * LANES))
        return builder.bitcast(bits, ir.VectorType(FLOAT, LANES))

    return FLOATS(address, kind), codegen


@intrinsic
def add_row_products(typingctx, totals, weights, address, stride):
    """Each row's 16 sums + the weights times the 16 fp32 at its address."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for row in range(totals.num_rows):
            place = row_address(builder, args[2], row, args[3])
            inputs = load_at(builder, place, FLOATS.llvm)
            total = fused(builder, builder.extract_value(value, row), args[1], inputs)
            value = builder.insert_value(value, total, row)
        return value

    return totals(totals, weights, address, stride), codegen


@compiled(OPTIONS)
def prepare(args, inputs, x, stride, weight, bias, num_rows, num_inputs, num_outputs, y, kind):
    """Put down a product's arguments, and the rows of x as fp32."""
    widen(inputs, x, stride, num_rows, num_inputs, kind)
    numbers = pointer(args, INT64)
    numbers[X], numbers[WEIGHT], numbers[BIAS], numbers[Y] = inputs, weight, bias, y
    numbers[NUM_ROWS], numbers[NUM_INPUTS], numbers[NUM_OUTPUTS] = num_rows, num_inputs, num_outputs


@compiled(OPTIONS)
def widen(inputs, x, stride, num_rows, num_inputs, kind):
    for row in range(num_rows):
        xs, out = row_values(x, row, stride, kind), row_values(inputs, row, num_inputs, FLOAT32)
        for i in range(num_inputs):
            out[i] = load(xs[i])


def linear(kind):
    """y = x·weightᵀ + bias for a matrix, a bias (or address 0) and results of this kind."""

    @compiled(OPTIONS)
    def product(args, low, high):
        numbers = pointer(args, INT64)
        multiply(
            numbers[X], numbers[WEIGHT], numbers[BIAS], numbers[NUM_ROWS], numbers[NUM_INPUTS],
            numbers[NUM_OUTPUTS], numbers[Y], kind, kind, low, high,
        )  # fmt: skip

    return product


@compiled(OPTIONS)
def multiply(x, weight, bias, num_rows, num_inputs, num_outputs, y, kind, y_kind, low, high):
    """Outputs low … high of all rows: rounded to `kind`, and stored as y_kind."""
    results = np.empty(4, np.float32)
    sums, biases, stride = results.ctypes.data, pointer(bias, kind), num_inputs * FLOAT_BYTES
    for j in range(low, high):
        weights = weight + j * num_inputs * bytes_of(kind)
        start = ZERO if bias == 0 else load(biases[j])
        row = 0
        while row < num_rows:
            count, inputs = min(4, num_rows - row), x + row * stride
            if count == 4:
                dots(weights, inputs, stride, num_inputs, sums, kind, FOUR_ROWS)
            elif count >= 2:
                count = 2
                dots(weights, inputs, stride, num_inputs, sums, kind, TWO_ROWS)
            else:
                dots(weights, inputs, stride, num_inputs, sums, kind, ONE_ROW)
            for place in range(count):
                out = row_values(y, row + place, num_outputs, y_kind)
                out[j] = store(rounded(results[place] + start, kind), y_kind)
            row += count


@compiled(OPTIONS)
def rounded(value, kind):
    """The fp32 that is left of a value once it was stored."""
    return load(store(value, kind))


@compiled(OPTIONS)
def dots(weights, x, stride, num_inputs, sums, kind, rows):
    """One row of a matrix times each of `rows` rows, as fp32 at `sums`."""
    totals, num_whole = float_zeros(rows), num_inputs // LANES * LANES
    for i in range(0, num_whole, LANES):
        address = weights + i * bytes_of(kind)
        prefetch(address + AHEAD)
        totals = add_row_products(totals, sixteen(address, kind), x + i * FLOAT_BYTES, stride)
    put_sums(sums, totals)
    results = pointer(sums, FLOAT32)
    last = row_values(weights, 0, 0, kind)
    for row in range(len(rows)):
        inputs = row_values(x + row * stride, 0, 0, FLOAT32)
        for i in range(num_whole, num_inputs):
            results[row] += load(last[i]) * inputs[i]
