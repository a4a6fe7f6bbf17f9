"""The operations' inner loops, compiled by numba for the CPU they run on.

A kernel takes addresses and row strides as plain integers: a call then costs 1 µs, and unpacking
ten arrays would cost 5. Channels are always the inner loop, so that LLVM fills whole vectors with
them. `kind` is the storage type of activations, FLOAT32 or BFLOAT16; arithmetic is fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types

from falcon_mamba_app.ops.cpu.compiled import compiled

intrinsic: Any = extending.intrinsic  # its type counts the compiler's context as an argument
# A float, an int, a bool and None: numba compiles one kernel for each type of argument, and
# distinguishes these types fastest.
FLOAT32, BFLOAT16, INT64, INT8 = 0.0, 0, False, None

# Channels in one block: their (16, d) states and A take 32 KB, and stay in a core's first cache
# from token to token.
BLOCK = 256

LOG2_E = np.float32(1.4426950408889634)
ZERO, ONE = np.float32(0.0), np.float32(1.0)
EXPONENT_MIN, EXPONENT_MAX = np.float32(-126.0), np.float32(128.0)
# 1.5·2²³: added to a float, it leaves the nearest integer in the low bits.
ROUNDER = np.float32(12582912.0)
# (2ᶠ − 1) / f for |f| ≤ ½, and log1p(e) / e for 0 ≤ e ≤ 1; the lowest power comes first.
EXP2 = (0.69314720285, 0.24022647914, 0.0555033247, 0.009618437357, 0.00133988744, 0.0001535336188)
LOG1P = (1.0, -0.499995023, 0.333192706, -0.248443693, 0.191114306, -0.136747703, 0.0783616677)
P, Q = tuple(map(np.float32, EXP2)), tuple(map(np.float32, (*LOG1P, -0.0295885075, 0.00525345793)))

# `contract` lets a product and a sum round once, and changes nothing else: NaN and infinity keep
# their meaning, and no sum changes its order. `reassoc` lets a dot product sum in many vectors.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
REORDERED = {**OPTIONS, "fastmath": {"contract", "reassoc"}}


@intrinsic
def pointer(typingctx, address, kind):
    """The values at `address`, as float32, int64, int8 or the 16 bits of a bfloat16."""
    element = _element(kind)
    signature = types.CPointer(element)(address, kind)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen


@intrinsic
def bytes_of(typingctx, kind):
    """The bytes of one stored value."""
    size = _element(kind).bitwidth // 8
    return types.int64(kind), lambda context, builder, signature, args: ir.IntType(64)(size)


def _element(kind):
    if isinstance(kind, types.Boolean):
        return types.int64
    if isinstance(kind, types.NoneType):
        return types.int8
    return types.float32 if isinstance(kind, types.Float) else types.uint16


@compiled(OPTIONS)
def row_values(address, row, stride, kind):
    """The values of one row; strides count values."""
    return pointer(address + row * stride * bytes_of(kind), kind)


@intrinsic
def load(typingctx, value):
    """A stored value as float32."""
    if value == types.float32:
        return value(value), lambda context, builder, signature, args: args[0]
    if value == types.int8:
        to_float = ir.FloatType()
        return types.float32(value), lambda context, builder, signature, args: builder.sitofp(
            args[0], to_float
        )

    def codegen(context, builder, signature, args):
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), codegen


def round_to_bfloat16(builder, value):
    """The 16 bits of the nearest bfloat16, ties to even, of a float or a vector of floats."""

    def like(kind, number=None):
        if isinstance(value.type, ir.VectorType):
            vector = ir.VectorType(kind, value.type.count)
            return vector if number is None else ir.Constant(vector, [number] * vector.count)
        return kind if number is None else ir.Constant(kind, number)

    word = ir.IntType(32)
    bits = builder.bitcast(value, like(word))
    is_odd = builder.and_(builder.lshr(bits, like(word, 16)), like(word, 1))
    rounded = builder.add(builder.add(bits, like(word, 0x7FFF)), is_odd)
    # The carry must not turn a NaN into infinity or zero.
    is_nan = builder.fcmp_unordered("uno", value, value)
    rounded = builder.select(is_nan, like(word, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(rounded, like(word, 16)), like(ir.IntType(16)))


@intrinsic
def store(typingctx, value, kind):
    """The stored form of a float32: rounded to the nearest bfloat16, ties to even."""
    if isinstance(kind, types.Float):
        return types.float32(value, kind), lambda context, builder, signature, args: args[0]

    def codegen(context, builder, signature, args):
        return round_to_bfloat16(builder, args[0])

    return types.uint16(value, kind), codegen


@intrinsic
def _power_of_two(typingctx, rounded):
    """2ⁿ for the n in the low bits of a float to which ROUNDER was added."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        exponent = builder.shl(builder.add(bits, word(127)), word(23))
        return builder.bitcast(exponent, ir.FloatType())

    return types.float32(rounded), codegen


@compiled(OPTIONS)
def exp2(x):
    """2ˣ to 2 units in the last place: 0 below −126, infinity from 127.5 (Cephes' polynomial)."""
    clipped = EXPONENT_MIN if x < EXPONENT_MIN else x
    clipped = EXPONENT_MAX if clipped > EXPONENT_MAX else clipped
    rounded = clipped + ROUNDER
    f = clipped - (rounded - ROUNDER)
    power = ((((P[5] * f + P[4]) * f + P[3]) * f + P[2]) * f + P[1]) * f + P[0]
    power = (power * f + ONE) * _power_of_two(rounded)
    return ZERO if x < EXPONENT_MIN else power


@compiled(OPTIONS)
def softplus(x):
    """max(x, 0) + log1p(e) with e = exp(−|x|), log1p as a polynomial on 0 … 1 that errs by 2e-7.

    Above 20, torch's threshold, the second part is below the last bit of the first.
    """
    e = exp2((-x if x > ZERO else x) * LOG2_E)
    log1p = (((Q[8] * e + Q[7]) * e + Q[6]) * e + Q[5]) * e + Q[4]
    log1p = (((log1p * e + Q[3]) * e + Q[2]) * e + Q[1]) * e + Q[0]
    return (x if x > ZERO else ZERO) + log1p * e


@compiled(OPTIONS)
def silu(x):
    return x / (ONE + exp2(x * -LOG2_E))


@compiled(REORDERED)
def dot(a, b, num_columns):
    total = ZERO
    for i in range(num_columns):
        total += load(a[i]) * load(b[i])
    return total


@compiled(OPTIONS)
def rms_norm(x, stride, weight, eps, num_rows, num_columns, y, kind, weight_kind, y_kind):
    """y (rows, columns) = x / sqrt(mean(x²) + eps) · weight; address 0 means no weight."""
    weights = pointer(weight, weight_kind)
    for row in range(num_rows):
        xs = row_values(x, row, stride, kind)
        ys = row_values(y, row, num_columns, y_kind)
        mean = dot(xs, xs, num_columns) / np.float32(num_columns)
        scale = ONE / np.sqrt(mean + np.float32(eps))
        for i in range(num_columns):
            factor = ONE if weight == 0 else load(weights[i])
            ys[i] = store(load(xs[i]) * scale * factor, y_kind)


@compiled(OPTIONS)
def conv(x, stride, weight, bias, conv_states, slots, query_starts, q, d, k, y, kind, low, high):
    """The convolution of q sequences for channels low … high; address 0 means no bias."""
    width, offset = high - low, low * bytes_of(kind)
    sums = np.empty(width, np.float32)
    biases = bias + offset if bias != 0 else 0
    for seq in range(q):
        start, end = _span(query_starts, seq)
        window = _state(conv_states, slots, seq, (k - 1) * d, kind) + offset
        new = x + start * stride * bytes_of(kind) + offset
        for t in range(end - start):
            out = row_values(y + offset, start + t, d, kind)
            _conv_token(
                window, new, stride, t, weight + offset, biases, sums, width, k, d, out, kind
            )
        _shift_window(window, new, stride, end - start, width, k, d, kind)


@compiled(OPTIONS)
def _conv_token(window, new, stride, t, weight, bias, sums, width, k, d, y, kind):
    """One row of y, from input t of a sequence and the k−1 inputs before it."""
    biases = pointer(bias, kind)
    for i in range(width):
        sums[i] = ZERO if bias == 0 else load(biases[i])
    for j in range(k):
        inputs = _input(window, new, stride, t + j, k, d, kind)
        weights = row_values(weight, j, d, kind)
        for i in range(width):
            sums[i] += load(weights[i]) * load(inputs[i])
    for i in range(width):
        y[i] = store(silu(sums[i]), kind)


@compiled(OPTIONS)
def _shift_window(window, new, stride, num_tokens, width, k, d, kind):
    """Replace the window by the last k−1 of its own inputs and the new ones."""
    for j in range(k - 1):
        inputs = _input(window, new, stride, num_tokens + j, k, d, kind)
        place = row_values(window, j, d, kind)
        for i in range(width):
            place[i] = inputs[i]


@compiled(OPTIONS)
def _input(window, new, stride, place, k, d, kind):
    """The inputs at a place: the first k−1 places are in the window, the others are new."""
    if place < k - 1:
        return row_values(window, place, d, kind)
    return row_values(new, place - (k - 1), stride, kind)


@compiled(OPTIONS)
def scan(
    x, x_stride, dt, dt_stride, A, B, B_stride, C, C_stride, D, z, z_stride, dt_bias,
    ssm_states, slots, query_starts, q, d, n, y, kind, low, high,
):  # fmt: skip
    """The scan of q sequences for channels low … high: block by block, each over all tokens."""
    buffers = np.empty((3, BLOCK), np.float32)
    for seq in range(q):
        start, end = _span(query_starts, seq)
        state = _state(ssm_states, slots, seq, n * d, FLOAT32)
        for first in range(low, high, BLOCK):
            for t in range(start, end):
                _advance(
                    row_values(x, t, x_stride, kind), row_values(dt, t, dt_stride, kind), A,
                    row_values(B, t, B_stride, kind), row_values(C, t, C_stride, kind), D,
                    row_values(z, t, z_stride, kind), dt_bias, state, row_values(y, t, d, kind),
                    first, min(first + BLOCK, high), d, n, kind, buffers,
                )  # fmt: skip


@compiled(OPTIONS)
def _advance(x, dt, A, B, C, D, z, dt_bias, state, y, low, high, d, n, kind, buffers):
    """One token of one sequence for channels low … high, at most BLOCK; state (n, d)."""
    delta, inputs, sums = buffers[0], buffers[1], buffers[2]
    biases, skips = pointer(dt_bias, FLOAT32), pointer(D, FLOAT32)
    for i in range(low, high):
        step = softplus(load(dt[i]) + biases[i])
        # Decays as powers of two: exp(Δ·A) = 2^(Δ·log₂e·A).
        delta[i - low] = step * LOG2_E
        inputs[i - low] = step * load(x[i])
    for i in range(high - low):
        sums[i] = ZERO
    for j in range(n):
        Aj, h = row_values(A, j, d, FLOAT32), row_values(state, j, d, FLOAT32)
        Bj, Cj = load(B[j]), load(C[j])
        for i in range(low, high):
            value = exp2(delta[i - low] * Aj[i]) * h[i] + inputs[i - low] * Bj
            h[i] = value
            sums[i - low] += value * Cj
    for i in range(low, high):
        y[i] = store((sums[i - low] + skips[i] * load(x[i])) * silu(load(z[i])), kind)


@compiled(OPTIONS)
def _span(query_starts, seq):
    """First token and end of a sequence; if query_starts is address 0, each has one token."""
    starts = pointer(query_starts, INT64)
    return (seq, seq + 1) if query_starts == 0 else (starts[seq], starts[seq + 1])


@compiled(OPTIONS)
def _state(states, slots, seq, num_values, kind):
    """The address of a sequence's state."""
    return states + pointer(slots, INT64)[seq] * num_values * bytes_of(kind)
