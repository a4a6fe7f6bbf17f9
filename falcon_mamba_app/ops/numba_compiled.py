"""The operations' inner loops, compiled by numba for the CPU they run on.

A kernel takes addresses and row strides as plain integers: a call then costs 1 µs, where unpacking
ten arrays would cost 5. Channels are the inner loop of everything, so that LLVM fills whole vectors
with them. `kind` tells the type that activations are stored in, FLOAT32 or BFLOAT16; arithmetic is
fp32. All kernels stay in this one file, because numba's cache on disk looks at no other for changes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# A Python float and a Python int, because numba compiles one kernel for each type of argument, and
# tells these two apart the fastest.
FLOAT32, BFLOAT16 = 0.0, 0

# Channels that are worked on together: their (16, d) states and A take 32 KB, and stay in a core's
# first cache from token to token.
BLOCK = 256

LOG2_E = np.float32(1.4426950408889634)
ZERO, ONE, THRESHOLD = np.float32(0.0), np.float32(1.0), np.float32(20.0)
EXPONENT_MIN, EXPONENT_MAX = np.float32(-126.0), np.float32(128.0)
# 1.5·2²³: added to a float, it leaves the nearest integer in the low bits.
ROUNDER = np.float32(12582912.0)

# `contract` lets a product and a sum round once. Nothing else: NaN and infinity keep their meaning,
# and no sum changes its order, so that a row's result does not depend on the others.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
REORDERED = {**OPTIONS, "fastmath": {"contract", "reassoc"}}


def compiled(options: dict):
    """njit with numba's cache on disk, where there is a folder for it to write to."""

    def decorate(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return decorate


@intrinsic
def _pointer(typingctx, address, kind):
    """The values at `address`, as float32 or as the 16 bits of a bfloat16."""
    element = types.float32 if isinstance(kind, types.Float) else types.uint16
    signature = types.CPointer(element)(address, kind)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen


@intrinsic
def _bytes(typingctx, kind):
    """Of one stored value."""
    size = 4 if isinstance(kind, types.Float) else 2
    return types.int64(kind), lambda context, builder, signature, args: ir.IntType(64)(size)


@compiled(OPTIONS)
def _row(address, row, stride, kind):
    """The values of one row; strides count values."""
    return _pointer(address + row * stride * _bytes(kind), kind)


@intrinsic
def _integers(typingctx, address):
    """The int64 values at `address`."""
    signature = types.CPointer(types.int64)(address)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen


@intrinsic
def _load(typingctx, value):
    """A stored value as float32."""

    def codegen(context, builder, signature, args):
        if signature.args[0] == types.float32:
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), codegen


@intrinsic
def _store(typingctx, value, kind):
    """A float32 as it is stored: rounded to the nearest bfloat16, ties to even."""
    if isinstance(kind, types.Float):
        return types.float32(value, kind), lambda context, builder, signature, args: args[0]

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        is_odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(builder.add(bits, word(0x7FFF)), is_odd)
        # The carry must not turn a NaN into infinity or zero.
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        rounded = builder.select(is_nan, word(0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, word(16)), ir.IntType(16))

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


C0, C1, C2 = (
    np.float32(0.6931472028550421),
    np.float32(0.2402264791363012),
    np.float32(0.0555033247),
)
C3, C4, C5 = np.float32(0.009618437357), np.float32(0.001339887440), np.float32(0.0001535336188)


@compiled(OPTIONS)
def exp2(x):
    """2ˣ to 2 units in the last place: 0 below −126, infinity from 127.5 (Cephes' polynomial)."""
    clipped = EXPONENT_MIN if x < EXPONENT_MIN else x
    clipped = EXPONENT_MAX if clipped > EXPONENT_MAX else clipped
    rounded = clipped + ROUNDER
    f = clipped - (rounded - ROUNDER)
    power = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + C0
    power = (power * f + ONE) * _power_of_two(rounded)
    return ZERO if x < EXPONENT_MIN else power


P0, P1, P2 = (
    np.float32(-0.49999502301216125),
    np.float32(0.3331927061080),
    np.float32(-0.2484436929),
)
P3, P4, P5 = np.float32(0.19111430644989014), np.float32(-0.136747702956), np.float32(0.07836166769)
P6, P7 = np.float32(-0.02958850748836994), np.float32(0.005253457929939032)


@compiled(OPTIONS)
def softplus(x):
    """max(x, 0) + log1p(e) with e = exp(−|x|), log1p as a polynomial on 0 … 1 that errs by 2e-7.

    Above 20, torch's threshold, the second part is below the last bit of the first.
    """
    e = exp2((-x if x > ZERO else x) * LOG2_E)
    log1p = ((((((P7 * e + P6) * e + P5) * e + P4) * e + P3) * e + P2) * e + P1) * e + P0
    return (x if x > ZERO else ZERO) + (log1p * e + ONE) * e


@compiled(OPTIONS)
def silu(x):
    return x / (ONE + exp2(x * -LOG2_E))


@compiled(OPTIONS)
def linear(x, stride, weight, bias, b, num_inputs, num_outputs, y, kind):
    """y (b, outputs) = x·weightᵀ + bias, reading each weight (outputs, inputs) once for all rows."""
    inputs = np.empty((b, num_inputs), np.float32)
    for row in range(b):
        xs = _row(x, row, stride, kind)
        for i in range(num_inputs):
            inputs[row, i] = _load(xs[i])
    biases, out = _pointer(bias, kind), _pointer(y, kind)
    for j in range(num_outputs):
        weights = _row(weight, j, num_inputs, kind)
        start = ZERO if bias == 0 else _load(biases[j])
        num_in_fours = b // 4 * 4
        for row in range(0, num_in_fours, 4):
            totals = _dot4(weights, inputs[row:row+4], num_inputs)
            for i in range(4):
                out[(row + i) * num_outputs + j] = _store(start + totals[i], kind)
        for row in range(num_in_fours, b):
            total = start + _dot(weights, inputs[row], num_inputs)
            out[row * num_outputs + j] = _store(total, kind)


@compiled(REORDERED)
def _dot(weights, inputs, num_inputs):
    total = ZERO
    for i in range(num_inputs):
        total += _load(weights[i]) * inputs[i]
    return total


@compiled(REORDERED)
def _dot4(weights, inputs, num_inputs):
    """Of one row of weights with four rows: each weight is loaded, and widened, once."""
    t0 = t1 = t2 = t3 = ZERO
    i0, i1, i2, i3 = inputs[0], inputs[1], inputs[2], inputs[3]
    for i in range(num_inputs):
        weight = _load(weights[i])
        t0 += weight * i0[i]
        t1 += weight * i1[i]
        t2 += weight * i2[i]
        t3 += weight * i3[i]
    return t0, t1, t2, t3


@compiled(OPTIONS)
def rms_norm(x, stride, num_rows, num_columns, eps, y, kind, y_kind):
    """y (rows, columns) = x / sqrt(mean(x²) + eps)."""
    for row in range(num_rows):
        xs = _row(x, row, stride, kind)
        ys = _row(y, row, num_columns, y_kind)
        scale = _scale(xs, num_columns, eps)
        for i in range(num_columns):
            ys[i] = _store(_load(xs[i]) * scale, y_kind)


@compiled(OPTIONS)
def rms_norm_weighted(x, stride, num_rows, num_columns, eps, y, weight, kind, y_kind, weight_kind):
    """`rms_norm` times weight (columns,)."""
    weights = _pointer(weight, weight_kind)
    for row in range(num_rows):
        xs = _row(x, row, stride, kind)
        ys = _row(y, row, num_columns, y_kind)
        scale = _scale(xs, num_columns, eps)
        for i in range(num_columns):
            ys[i] = _store(_load(xs[i]) * scale * _load(weights[i]), y_kind)


@compiled(REORDERED)
def _scale(x, num_columns, eps):
    total = ZERO
    for i in range(num_columns):
        value = _load(x[i])
        total += value * value
    return ONE / np.sqrt(total / np.float32(num_columns) + np.float32(eps))


@compiled(OPTIONS)
def conv_step(x, stride, weight, bias, conv_states, slots, b, d, k, y, kind):
    """`reference.conv_step`; a bias of address 0 is none."""
    sums = np.empty(d, np.float32)
    for row in range(b):
        window = conv_states + _integers(slots)[row] * (k - 1) * d * _bytes(kind)
        new = x + row * stride * _bytes(kind)
        _conv_token(window, new, stride, 0, weight, bias, sums, d, k, d, y, row, kind)
        _shift_window(window, new, stride, 1, d, k, d, kind)


@compiled(OPTIONS)
def conv_prefill(
    x, stride, weight, bias, conv_states, slots, query_starts, q, d, k, y, kind, low, high
):
    """`reference.conv_prefill` for channels low … high."""
    width, offset = high - low, low * _bytes(kind)
    sums = np.empty(width, np.float32)
    has_bias = bias != 0
    for seq in range(q):
        start, end = _integers(query_starts)[seq], _integers(query_starts)[seq + 1]
        window = conv_states + _integers(slots)[seq] * (k - 1) * d * _bytes(kind) + offset
        new = x + start * stride * _bytes(kind) + offset
        for t in range(end - start):
            _conv_token(
                window, new, stride, t, weight + offset, bias + offset * has_bias, sums,
                width, k, d, y + offset, start + t, kind,
            )  # fmt: skip
        _shift_window(window, new, stride, end - start, width, k, d, kind)


@compiled(OPTIONS)
def _conv_token(window, new, stride, t, weight, bias, sums, width, k, d, y, row, kind):
    """Row `row` of y from input t of a sequence and the k−1 before it."""
    biases = _pointer(bias, kind)
    for i in range(width):
        sums[i] = ZERO if bias == 0 else _load(biases[i])
    for j in range(k):
        inputs = _input(window, new, stride, t + j, k, d, kind)
        weights = _row(weight, j, d, kind)
        for i in range(width):
            sums[i] += _load(weights[i]) * _load(inputs[i])
    out = _row(y, row, d, kind)
    for i in range(width):
        out[i] = _store(silu(sums[i]), kind)


@compiled(OPTIONS)
def _shift_window(window, new, stride, num_tokens, width, k, d, kind):
    """The last k−1 of the window's inputs and the new ones become the window."""
    for j in range(k - 1):
        inputs = _input(window, new, stride, num_tokens + j, k, d, kind)
        place = _row(window, j, d, kind)
        for i in range(width):
            place[i] = inputs[i]


@compiled(OPTIONS)
def _input(window, new, stride, place, k, d, kind):
    """The inputs at a place counted from the window's first: k−1 in the window, then new ones."""
    if place < k - 1:
        return _row(window, place, d, kind)
    return _row(new, place - (k - 1), stride, kind)


@compiled(OPTIONS)
def scan_step(
    x, x_stride, dt, dt_stride, A, B, B_stride, C, C_stride, D, z, z_stride, dt_bias,
    ssm_states, slots, b, d, n, y, kind,
):  # fmt: skip
    """`reference.scan_step`."""
    buffers = np.empty((3, BLOCK), np.float32)
    for row in range(b):
        state = ssm_states + _integers(slots)[row] * n * d * 4
        for low in range(0, d, BLOCK):
            _advance(
                _row(x, row, x_stride, kind), _row(dt, row, dt_stride, kind), A,
                _row(B, row, B_stride, kind), _row(C, row, C_stride, kind), D,
                _row(z, row, z_stride, kind), dt_bias,
                state, low, min(low + BLOCK, d), d, n, _row(y, row, d, kind), kind, buffers,
            )  # fmt: skip


@compiled(OPTIONS)
def scan_prefill(
    x, x_stride, dt, dt_stride, A, B, B_stride, C, C_stride, D, z, z_stride, dt_bias,
    ssm_states, slots, query_starts, q, d, n, y, kind, low, high,
):  # fmt: skip
    """`reference.scan_prefill` for channels low … high."""
    buffers = np.empty((3, BLOCK), np.float32)
    for seq in range(q):
        start, end = _integers(query_starts)[seq], _integers(query_starts)[seq + 1]
        state = ssm_states + _integers(slots)[seq] * n * d * 4
        for first in range(low, high, BLOCK):
            for t in range(start, end):
                _advance(
                    _row(x, t, x_stride, kind), _row(dt, t, dt_stride, kind), A,
                    _row(B, t, B_stride, kind), _row(C, t, C_stride, kind), D,
                    _row(z, t, z_stride, kind), dt_bias,
                    state, first, min(first + BLOCK, high), d, n, _row(y, t, d, kind), kind,
                    buffers,
                )  # fmt: skip


@compiled(OPTIONS)
def _advance(x, dt, A, B, C, D, z, dt_bias, state, low, high, d, n, y, kind, buffers):
    """One token of one sequence for channels low … high, at most BLOCK; state (n, d)."""
    delta, inputs, sums = buffers[0], buffers[1], buffers[2]
    biases, skips = _pointer(dt_bias, FLOAT32), _pointer(D, FLOAT32)
    for i in range(low, high):
        step = softplus(_load(dt[i]) + biases[i])
        # Decays as powers of two: exp(Δ·A) = 2^(Δ·log₂e·A).
        delta[i - low] = step * LOG2_E
        inputs[i - low] = step * _load(x[i])
    for i in range(high - low):
        sums[i] = ZERO
    for j in range(n):
        Aj, h = _row(A, j, d, FLOAT32), _row(state, j, d, FLOAT32)
        Bj, Cj = _load(B[j]), _load(C[j])
        for i in range(low, high):
            value = exp2(delta[i - low] * Aj[i]) * h[i] + inputs[i - low] * Bj
            h[i] = value
            sums[i - low] += value * Cj
    for i in range(low, high):
        y[i] = _store((sums[i - low] + skips[i] * _load(x[i])) * silu(_load(z[i])), kind)
