"""A decode step's operations around its products, each with the product it can share a call with.

What computes a row is the functions of `kernels` and `dense_kernels`, so a row gets the same
numbers as by separate calls, bit for bit. `dense_kernels` says how a product is called.
"""

from __future__ import annotations

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.dense_kernels import (
    BIAS,
    NUM_INPUTS,
    NUM_OUTPUTS,
    NUM_ROWS,
    WEIGHT,
    X,
    Y,
    multiply,
    prepare,
    widen,
)
from falcon_mamba_app.ops.cpu.kernels import (
    FLOAT32,
    INT64,
    OPTIONS,
    bytes_of,
    conv,
    load,
    pointer,
    rms_norm,
    scan,
)

FIRST = 8  # behind a product's own arguments
CONV_WEIGHT, CONV_BIAS, CONV_STATES, CONV_SLOTS, NUM_CHANNELS, CONV_WIDTH, CONVOLVED = range(
    FIRST, FIRST + 7
)
(
    SCAN_X, SCAN_X_STRIDE, A, B, B_STRIDE, C, C_STRIDE, D, Z, Z_STRIDE, DT_BIAS, SSM_STATES,
    SCAN_SLOTS, NUM_STATES, SCANNED,
) = range(FIRST, FIRST + 15)  # fmt: skip
ARGUMENT_BYTES = 192


@compiled(OPTIONS)
def add_rms_norm(
    hidden, addend, weight, eps, num_rows, num_columns, new, y, kind, weight_kind, y_kind
):  # fmt: skip
    """new (rows, columns) = hidden + addend, both fp32, and y, its norm."""
    before, added = pointer(hidden, FLOAT32), pointer(addend, kind)
    after = pointer(new, FLOAT32)
    for i in range(num_rows * num_columns):
        after[i] = before[i] + load(added[i])
    rms_norm(new, num_columns, weight, eps, num_rows, num_columns, y, FLOAT32, weight_kind, y_kind)


@compiled(OPTIONS)
def prepare_conv(
    args, inputs, x, stride, weight, bias, num_rows, num_inputs, num_outputs, y, kind,
    conv_weight, conv_bias, conv_states, slots, width, convolved,
):  # fmt: skip
    """Put down the arguments of `projected_conv`."""
    prepare(args, inputs, x, stride, weight, bias, num_rows, num_inputs, num_outputs, y, kind)
    numbers = pointer(args, INT64)
    numbers[CONV_WEIGHT], numbers[CONV_BIAS], numbers[CONV_STATES] = (
        conv_weight, conv_bias, conv_states
    )  # fmt: skip
    numbers[CONV_SLOTS], numbers[NUM_CHANNELS] = slots, num_outputs // 2
    numbers[CONV_WIDTH], numbers[CONVOLVED] = width, convolved


def projected_conv(kind):
    """Outputs low … high of a product, and the convolution of those in its first half."""

    @compiled(OPTIONS)
    def product(args, low, high):
        at = pointer(args, INT64)
        num_rows, num_outputs, d = at[NUM_ROWS], at[NUM_OUTPUTS], at[NUM_CHANNELS]
        multiply(
            at[X], at[WEIGHT], at[BIAS], num_rows, at[NUM_INPUTS], num_outputs, at[Y], kind, kind,
            low, high,
        )  # fmt: skip
        if low < d:
            conv(
                at[Y], num_outputs, at[CONV_WEIGHT], at[CONV_BIAS], at[CONV_STATES],
                at[CONV_SLOTS], 0, num_rows, d, at[CONV_WIDTH], at[CONVOLVED], kind, low,
                min(high, d),
            )  # fmt: skip

    return product


@compiled(OPTIONS)
def prepare_scan(
    args, inputs, scratch, addends, has_norm, eps, rank, num_states, num_rows, kind, dt_weight, dt,
    d, x, x_stride, a, skips, z, z_stride, dt_bias, ssm_states, slots, y,
):  # fmt: skip
    """Put down the arguments of `projected_scan`; the three parts of the addends are normalised
    into scratch, or read where they are.
    """
    columns, size = rank + 2 * num_states, bytes_of(kind)
    if has_norm:
        source, first = addends, 0
        for width in (rank, num_states, num_states):
            part, out = source + first * size, scratch + num_rows * first * size
            rms_norm(part, columns, 0, eps, num_rows, width, out, kind, kind, kind)
            first += width
        addends = scratch
    stride = rank if has_norm else columns
    widen(inputs, addends, stride, num_rows, rank, kind)
    at = pointer(args, INT64)
    at[X], at[WEIGHT], at[BIAS], at[Y] = inputs, dt_weight, 0, dt
    at[NUM_ROWS], at[NUM_INPUTS], at[NUM_OUTPUTS] = num_rows, rank, d
    rows = num_rows if has_norm else 1
    at[B], at[C] = addends + rows * rank * size, addends + rows * (rank + num_states) * size
    at[B_STRIDE] = at[C_STRIDE] = num_states if has_norm else columns
    at[SCAN_X], at[SCAN_X_STRIDE], at[Z], at[Z_STRIDE] = x, x_stride, z, z_stride
    at[A], at[D], at[DT_BIAS], at[SSM_STATES] = a, skips, dt_bias, ssm_states
    at[SCAN_SLOTS], at[NUM_STATES], at[SCANNED] = slots, num_states, y


def projected_scan(kind):
    """Channels low … high of dt, and the scan of them."""

    @compiled(OPTIONS)
    def product(args, low, high):
        at = pointer(args, INT64)
        num_rows, d, dt = at[NUM_ROWS], at[NUM_OUTPUTS], at[Y]
        multiply(
            at[X], at[WEIGHT], at[BIAS], num_rows, at[NUM_INPUTS], d, dt, kind, kind, low, high
        )
        scan(
            at[SCAN_X], at[SCAN_X_STRIDE], dt, d, at[A], at[B], at[B_STRIDE], at[C], at[C_STRIDE],
            at[D], at[Z], at[Z_STRIDE], at[DT_BIAS], at[SSM_STATES], at[SCAN_SLOTS], 0, num_rows,
            d, at[NUM_STATES], at[SCANNED], kind, low, high,
        )  # fmt: skip

    return product
