"""The inner loops over matrices in 8 and in 4 bits; `kernels` says how they are called.

A matrix in 8 bits is multiplied where it lies. One in 4 bits is dequantised.
"""

from __future__ import annotations

import numpy as np

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import (
    BFLOAT16,
    FLOAT32,
    INT8,
    OPTIONS,
    ZERO,
    dot,
    load,
    pointer,
    row_values,
    store,
)


@compiled(OPTIONS)
def linear_8bit(
    x, stride, weight, scale, num_groups, bias, b, num_inputs, num_outputs, y, kind, low, high
):  # fmt: skip
    """`linear` with a matrix of int8 whose rows have scales for num_groups groups of inputs."""
    inputs = np.empty((b, num_inputs), np.float32)
    for row in range(b):
        xs = row_values(x, row, stride, kind)
        for i in range(num_inputs):
            inputs[row, i] = load(xs[i])
    biases, out, width = pointer(bias, kind), pointer(y, kind), num_inputs // num_groups
    for j in range(low, high):
        scales = row_values(scale, j, num_groups, FLOAT32)
        start = ZERO if bias == 0 else load(biases[j])
        for row in range(b):
            total = start
            for group in range(num_groups):
                weights = row_values(weight + j * num_inputs, group, width, INT8)
                values = inputs[row, group * width : (group + 1) * width]
                total += scales[group] * dot(weights, values, width)
            out[row * num_outputs + j] = store(total, kind)


@compiled(OPTIONS)
def dequantize_8bit(weight, scale, num_groups, num_inputs, y, kind, low, high):
    """Rows low … high of `weight_8bit.dequantize`."""
    width = num_inputs // num_groups
    for j in range(low, high):
        scales = row_values(scale, j, num_groups, FLOAT32)
        weights, out = row_values(weight, j, num_inputs, INT8), row_values(y, j, num_inputs, kind)
        for group in range(num_groups):
            for i in range(group * width, (group + 1) * width):
                out[i] = store(load(weights[i]) * scales[group], kind)


@compiled(OPTIONS)
def dequantize_4bit(packed, absmax, code, blocksize, scratch, y, kind, low, high):
    """Blocks low … high of `weight_4bit.dequantize`, 16 bits at a time; scratch holds 16 values."""
    words, magnitudes = pointer(packed, BFLOAT16), pointer(absmax, FLOAT32)
    codes, table, values = pointer(code, FLOAT32), pointer(scratch, kind), pointer(y, kind)
    for block in range(low, high):
        for i in range(16):
            table[i] = store(codes[i] * magnitudes[block], kind)
        for i in range(block * blocksize // 4, (block + 1) * blocksize // 4):
            word = words[i]
            values[4 * i], values[4 * i + 1] = table[word >> 4 & 15], table[word & 15]
            values[4 * i + 2], values[4 * i + 3] = table[word >> 12], table[word >> 8 & 15]
