"""top_n_sigma, typical_p and XTC for a row of logits: the band of weights that they leave.

A token's weight is its probability divided by the best token's. Each of these filters keeps the
tokens in a range of weights: not too far below the best, about as surprising as expected, or not
above the least of the top choices. So the bits of the smallest and the largest kept weight describe
the result. Few requests use these filters: one program passes over such a row many times, and for
the other rows the cost is one launch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from falcon_mamba_app.ops.reference.sampling import LEAST_LOGIT, Column
from falcon_mamba_app.ops.triton.overlap import start_next, wait_for_inputs

BLOCK, WARPS = tl.constexpr(4096), 16
ONE_BITS, INFINITE_BITS = tl.constexpr(0x3F800000), tl.constexpr(0x7F800000)
TEMPERATURE, MIN_P = tl.constexpr(int(Column.TEMPERATURE)), tl.constexpr(int(Column.MIN_P))
TOP_N_SIGMA = tl.constexpr(int(Column.TOP_N_SIGMA))
TYPICAL_P = tl.constexpr(int(Column.TYPICAL_P))
XTC_PROBABILITY = tl.constexpr(int(Column.XTC_PROBABILITY))
XTC_THRESHOLD = tl.constexpr(int(Column.XTC_THRESHOLD))
XTC_UNIFORM = tl.constexpr(int(Column.XTC_UNIFORM))
LEAST = tl.constexpr(LEAST_LOGIT / 2)


@triton.jit(do_not_specialize_on_alignment=["params_ptr"])
def later_filters_kernel(
    logits_ptr,
    stride,
    params_ptr,
    params_stride,
    maxima_ptr,
    vocab_size,
    floors_ptr,
    ceilings_ptr,
    num_parts,
    PARTS: tl.constexpr,
):
    """Raise the row's floor, the bits of the smallest weight that is kept, and set its ceiling."""
    start_next()
    row = tl.program_id(0).to(tl.int64)
    params_ptr += row * params_stride
    logits_ptr += row * stride
    wait_for_inputs()
    temperature, min_p = tl.load(params_ptr + TEMPERATURE), tl.load(params_ptr + MIN_P)
    sigmas, typical_p = tl.load(params_ptr + TOP_N_SIGMA), tl.load(params_ptr + TYPICAL_P)
    has_xtc = tl.load(params_ptr + XTC_UNIFORM) < tl.load(params_ptr + XTC_PROBABILITY)
    is_asked = (sigmas > 0.0) | (typical_p < 1.0) | has_xtc
    ceiling = ONE_BITS
    if is_asked & (temperature > 0.0):
        parts = tl.arange(0, PARTS)
        maxima = tl.load(
            maxima_ptr + row * num_parts + parts, mask=parts < num_parts, other=-float("inf")
        )
        best = tl.max(maxima, axis=0)
        floor = tl.maximum(tl.load(floors_ptr + row), min_p.to(tl.int32, bitcast=True))
        if sigmas > 0.0:
            floor = _floor_of_sigmas(logits_ptr, best, temperature, vocab_size, floor, sigmas)
        if typical_p < 1.0:
            floor, ceiling = _typical(logits_ptr, best, temperature, vocab_size, floor, typical_p)
        if has_xtc:
            threshold = tl.load(params_ptr + XTC_THRESHOLD)
            ceiling = _below_top_choices(
                logits_ptr, best, temperature, vocab_size, floor, ceiling, threshold
            )
        tl.store(floors_ptr + row, floor)
    tl.store(ceilings_ptr + row, ceiling)


@triton.jit
def _floor_of_sigmas(logits_ptr, best, temperature, vocab_size, floor, sigmas):
    """The floor, raised to the smallest weight within `sigmas` standard deviations of the logits
    below the best one.
    """
    count = tl.zeros((BLOCK,), tl.float32)
    total, squares = count, count
    for start in tl.range(0, vocab_size, BLOCK):
        below, _, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        below = tl.where(is_token, below, 0.0)
        count += is_token.to(tl.float32)
        total += below
        squares += below * below
    number = tl.sum(count, axis=0)
    mean = tl.sum(total, axis=0) / number
    farthest = sigmas * tl.sqrt(tl.maximum(tl.sum(squares, axis=0) / number - mean * mean, 0.0))
    least = tl.full((BLOCK,), ONE_BITS, tl.int32)
    for start in tl.range(0, vocab_size, BLOCK):
        below, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        is_near = is_token & (below <= farthest)
        least = tl.minimum(least, tl.where(is_near, bits, ONE_BITS))
    return tl.maximum(floor, tl.min(least, axis=0))


@triton.jit
def _typical(logits_ptr, best, temperature, vocab_size, floor, typical_p):
    """The band of the tokens whose surprise is nearest to the entropy and that hold typical_p of
    the mass. Both are measured relative to the surprise of the best token.
    """
    mass = tl.zeros((BLOCK,), tl.float32)
    surprise = mass
    for start in tl.range(0, vocab_size, BLOCK):
        below, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        weights = _kept(bits, is_token, floor, ONE_BITS)
        mass += weights
        surprise += weights * (tl.where(is_token, below, 0.0) / temperature)
    total = tl.sum(mass, axis=0)
    entropy = tl.sum(surprise, axis=0) / total
    needed = typical_p * total
    # Three borders at a time settle two bits.
    low, high = -1, INFINITE_BITS
    while high - low > 1:
        step = (high - low + 3) // 4
        first = tl.zeros((BLOCK,), tl.float32)
        second, third = first, first
        for start in tl.range(0, vocab_size, BLOCK):
            below, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
            weights = _kept(bits, is_token, floor, ONE_BITS)
            distances = _distances(below, temperature, entropy)
            first += tl.where(distances <= low + step, weights, 0.0)
            second += tl.where(distances <= low + 2 * step, weights, 0.0)
            third += tl.where(distances <= low + 3 * step, weights, 0.0)
        # A border past the interval needs no test: a smaller one is known to be enough.
        num_short = _is_short(first, needed, low + step, high)
        num_short += _is_short(second, needed, low + 2 * step, high)
        num_short += _is_short(third, needed, low + 3 * step, high)
        low += num_short * step
        high = tl.minimum(high, low + step)
    least = tl.full((BLOCK,), ONE_BITS, tl.int32)
    largest = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, vocab_size, BLOCK):
        below, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        is_kept = _kept(bits, is_token, floor, ONE_BITS) > 0.0
        is_kept = is_kept & (_distances(below, temperature, entropy) <= high)
        least = tl.minimum(least, tl.where(is_kept, bits, ONE_BITS))
        largest = tl.maximum(largest, tl.where(is_kept, bits, 0))
    return tl.min(least, axis=0), tl.max(largest, axis=0)


@triton.jit
def _below_top_choices(logits_ptr, best, temperature, vocab_size, floor, ceiling, threshold):
    """The weight of the least likely token of at least `threshold` of the mass."""
    mass = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, vocab_size, BLOCK):
        _, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        mass += _kept(bits, is_token, floor, ceiling)
    share = threshold * tl.sum(mass, axis=0)
    least = tl.full((BLOCK,), ONE_BITS, tl.int32)
    for start in tl.range(0, vocab_size, BLOCK):
        _, bits, is_token = _tokens(logits_ptr, start, best, temperature, vocab_size)
        weights = _kept(bits, is_token, floor, ceiling)
        is_choice = (weights >= share) & (weights > 0.0)
        least = tl.minimum(least, tl.where(is_choice, bits, ONE_BITS))
    return tl.minimum(ceiling, tl.min(least, axis=0))


@triton.jit
def _tokens(logits_ptr, start, best, temperature, vocab_size):
    """The distances of a block's logits below the best one, the bits of their weights, and a mask
    of the places that hold tokens which can be drawn.
    """
    columns = start + tl.arange(0, BLOCK)
    logits = tl.load(logits_ptr + columns, mask=columns < vocab_size, other=-float("inf"))
    weights = tl.exp((logits - best) / temperature)
    return best - logits, weights.to(tl.int32, bitcast=True), logits > LEAST


@triton.jit
def _kept(bits, is_token, floor, ceiling):
    """The weights of a block's tokens inside the band, 0 for the others."""
    is_kept = is_token & (bits >= floor) & (bits <= ceiling)
    return tl.where(is_kept, bits.to(tl.float32, bitcast=True), 0.0)


@triton.jit
def _distances(below, temperature, entropy):
    """The distance of each surprise from the entropy, as bits, which have the same order."""
    return tl.abs(below / temperature - entropy).to(tl.int32, bitcast=True)


@triton.jit
def _is_short(sums, needed, border, high):
    return ((tl.sum(sums, axis=0) < needed) & (border < high)).to(tl.int32)
