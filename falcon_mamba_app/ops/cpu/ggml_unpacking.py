"""Matrices in GGML's blocks as rows of fp32 or bfloat16, for prompts."""

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
from falcon_mamba_app.ops.cpu.kernels import INT8, OPTIONS, ZERO, load, pointer
from falcon_mamba_app.ops.cpu.scalars import half
from falcon_mamba_app.ops.cpu.vectors import put


@compiled(OPTIONS)
def unpack_32(weight, row_bytes, num_inputs, y, value_bytes, kind, form, low, high):
    num_blocks = num_inputs // GROUP
    block_bytes = row_bytes // num_blocks
    for j in range(low, high):
        for i in range(num_blocks):
            address, place = weight + j * row_bytes + i * block_bytes, j * num_inputs + GROUP * i
            factor, numbers = half(address), numbers_32(address, form)
            put(y + place * value_bytes, numbers, factor, factor, ZERO, kind)


@compiled(OPTIONS)
def unpack_minima(weight, row_bytes, num_inputs, y, value_bytes, kind, form, low, high):
    num_blocks = num_inputs // BLOCK
    block_bytes = row_bytes // num_blocks
    for j in range(low, high):
        for block in range(num_blocks):
            address = weight + j * row_bytes + block * block_bytes
            factor, minimum = half(address), half(address + 2)
            multiples, minima = multiples_of(address), minima_of(address)
            for i in range(4):
                place = y + (j * num_inputs + block * BLOCK + 2 * GROUP * i) * value_bytes
                low_halves, high_halves = numbers_with_minima(address, form, i)
                times_low = factor * np.float32(byte_of(multiples, 2 * i))
                less = minimum * np.float32(byte_of(minima, 2 * i))
                put(place, low_halves, times_low, times_low, less, kind)
                times_high = factor * np.float32(byte_of(multiples, 2 * i + 1))
                less = minimum * np.float32(byte_of(minima, 2 * i + 1))
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
                    put(place, numbers_q6_k(address, side, i), first, second, ZERO, kind)
