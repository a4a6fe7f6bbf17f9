"""Whole numbers as they lie in GGML's blocks, in groups of 32. `form` distinguishes two kinds that
differ little: it is None for Q8_0 and Q4_K, and False for Q4_0 and Q5_K, so numba compiles a kernel
for each.
"""

from __future__ import annotations

import numpy as np

from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import OPTIONS
from falcon_mamba_app.ops.cpu.scalars import word
from falcon_mamba_app.ops.cpu.vectors import (
    bits,
    minus,
    nibbles,
    plus_times,
    signed_bytes,
    unsigned_bytes,
)

BLOCK, GROUP = 256, 32
Q6_K_BYTES = 210
LOW_SIX, LOW_FOUR, HIGH_TWO = (np.uint64(0x01010101 * byte) for byte in (63, 15, 48))
EIGHT_BITS, FOUR_BITS, TWO_BITS, WORD_BITS = (np.uint64(count) for count in (8, 4, 2, 32))
LOW_BYTE = np.uint64(255)


@compiled(OPTIONS)
def numbers_32(address, form):
    if form is None:  # Q8_0
        return signed_bytes(address + 2)
    return minus(nibbles(address + 2), 8)


@compiled(OPTIONS)
def numbers_with_minima(address, form, i):
    """Groups 2·i and 2·i + 1: they share 32 bytes."""
    if form is None:  # Q4_K
        packed = unsigned_bytes(address + 16 + GROUP * i)
        return bits(packed, 0, 15), bits(packed, 4, 15)
    packed, fifth = unsigned_bytes(address + 48 + GROUP * i), unsigned_bytes(address + 16)
    low = plus_times(bits(packed, 0, 15), bits(fifth, 2 * i, 1), 16)
    return low, plus_times(bits(packed, 4, 15), bits(fifth, 2 * i + 1, 1), 16)


@compiled(OPTIONS)
def numbers_q6_k(address, side, i):
    """Four groups of a side share 64 bytes of low bits and 32 bytes of high bits."""
    low = unsigned_bytes(address + 64 * side + GROUP * (i & 1))
    low = bits(low, 4 * (i >> 1), 15)
    high = bits(unsigned_bytes(address + 128 + GROUP * side), 2 * i, 3)
    return minus(plus_times(low, high, 16), 32)


@compiled(OPTIONS)
def multiples_of(address):
    """The eight factors of a block with minima, each in a byte."""
    low, high = word(address + 4), word(address + 12)
    return low & LOW_SIX | (high & LOW_FOUR | low >> TWO_BITS & HIGH_TWO) << WORD_BITS


@compiled(OPTIONS)
def minima_of(address):
    low, high = word(address + 8), word(address + 12)
    return low & LOW_SIX | (high >> FOUR_BITS & LOW_FOUR | low >> TWO_BITS & HIGH_TWO) << WORD_BITS


@compiled(OPTIONS)
def byte_of(word, i):
    return np.int64(word >> np.uint64(i) * EIGHT_BITS & LOW_BYTE)
