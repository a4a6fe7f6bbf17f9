"""Finds the floors of top_k and top_p in a row of logits without sorting it.

Several programs share a row, one for each PART of the vocabulary. They count the tokens, and sum
their weight, in each of BINS intervals of weight. Then the last of the row's programs searches only
the interval that holds a floor.

A token's weight is its probability divided by the best token's, in [0, 1]. Its bits, read as an
integer, have the same order as the weights, so a search of at most 30 bits ends at the exact floor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from falcon_mamba_app.ops.reference.sampling import Column
from falcon_mamba_app.ops.triton.overlap import start_next, wait_for_inputs

ONE_BITS = tl.constexpr(0x3F800000)  # of the weight 1.0
# The first bins are half an octave of weight each, the bins after NARROW_BINS four octaves, and the
# last one is everything below 2⁻⁴⁰: usually only a few dozen tokens are likely.
BINS, NARROW_BINS = tl.constexpr(32), tl.constexpr(24)
NARROW_BITS, WIDE_BITS = tl.constexpr(22), tl.constexpr(25)
TEMPERATURE, TOP_K = tl.constexpr(int(Column.TEMPERATURE)), tl.constexpr(int(Column.TOP_K))
TOP_P = tl.constexpr(int(Column.TOP_P))


@triton.jit(do_not_specialize_on_alignment=["params_ptr"])
def histogram_kernel(
    logits_ptr,
    stride,
    params_ptr,
    params_stride,
    maxima_ptr,
    vocab_size,
    counts_ptr,
    masses_ptr,
    PART: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Count the tokens of each part, and sum their weight, per bin."""
    start_next()
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    params_ptr += row * params_stride
    wait_for_inputs()
    temperature = tl.load(params_ptr + TEMPERATURE)
    is_asked = (tl.load(params_ptr + TOP_K) > 0.0) | (tl.load(params_ptr + TOP_P) < 1.0)
    if is_asked & (temperature > 0.0):
        weights, is_token = weights_of(
            logits_ptr + row * stride, part, temperature, maxima_ptr, row, vocab_size, PART, PARTS
        )
        bins = _bins(weights)
        all_bins = tl.arange(0, BINS)
        is_inside = bins[None, :] == all_bins[:, None]
        masses = tl.sum(tl.where(is_inside, weights[None, :], 0.0), axis=1)
        counts = tl.histogram(tl.where(is_token, bins, BINS), 2 * BINS)
        place = (row * tl.num_programs(0) + part) * BINS
        tl.store(masses_ptr + place + all_bins, masses)
        places = tl.arange(0, 2 * BINS)
        tl.store(counts_ptr + place + places, counts, mask=places < BINS)


@triton.jit(do_not_specialize_on_alignment=["params_ptr"])
def cutoff_kernel(
    logits_ptr,
    stride,
    params_ptr,
    params_stride,
    maxima_ptr,
    vocab_size,
    counts_ptr,
    masses_ptr,
    candidates_ptr,
    floors_ptr,
    totals_ptr,
    num_done_ptr,
    IS_TOP_K: tl.constexpr,
    PART: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The largest floor that keeps top_k tokens, or top_p of their weight."""
    start_next()
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    num_parts = tl.num_programs(0)
    params_ptr += row * params_stride
    wait_for_inputs()
    temperature = tl.load(params_ptr + TEMPERATURE)
    top_k, top_p = tl.load(params_ptr + TOP_K), tl.load(params_ptr + TOP_P)
    is_asked = top_k > 0.0 if IS_TOP_K else top_p < 1.0
    if is_asked & (temperature > 0.0):
        bins, parts = tl.arange(0, BINS), tl.arange(0, PARTS)
        places = (row * num_parts + parts)[:, None] * BINS + bins[None, :]
        is_part = (parts < num_parts)[:, None]
        counts = tl.load(counts_ptr + places, mask=is_part, other=0)
        masses = tl.sum(tl.load(masses_ptr + places, mask=is_part, other=0.0), axis=0)
        if IS_TOP_K:
            needed = top_k
            contents = tl.sum(counts, axis=0).to(tl.float32)
        else:
            total = tl.sum(masses, axis=0)
            if top_k > 0.0:
                total = tl.load(totals_ptr + row)
            needed = top_p * total
            contents = masses
        bin = tl.sum((tl.cumsum(contents, axis=0) < needed).to(tl.int32), axis=0)
        bin = tl.minimum(bin, BINS - 1)
        above = tl.sum(tl.where(bins < bin, contents, 0.0), axis=0)

        inside = tl.sum(tl.where(bins[None, :] == bin, counts, 0), axis=1)  # per part
        before = tl.sum(tl.where(parts < part, inside, 0), axis=0)
        weights, is_token = weights_of(
            logits_ptr + row * stride, part, temperature, maxima_ptr, row, vocab_size, PART, PARTS
        )
        is_candidate = is_token & (_bins(weights) == bin)
        candidates_ptr += row * vocab_size
        places = before + tl.cumsum(is_candidate.to(tl.int32), axis=0) - 1
        tl.store(candidates_ptr + places, weights.to(tl.int32, bitcast=True), mask=is_candidate)
        tl.debug_barrier()
        num_done = tl.atomic_add(num_done_ptr + row * 3 + (0 if IS_TOP_K else 1), 1)
        if num_done == num_parts - 1:
            num_candidates = tl.sum(inside, axis=0)
            floor = _search(candidates_ptr, num_candidates, bin, needed - above, IS_TOP_K, PART)
            tl.store(floors_ptr + row, floor)
            if IS_TOP_K:
                total = tl.sum(tl.where(bins < bin, masses, 0.0), axis=0)
                for start in tl.range(0, num_candidates, PART):
                    bits = _candidates(candidates_ptr, start, num_candidates, PART)
                    weights = bits.to(tl.float32, bitcast=True)
                    total += tl.sum(tl.where(bits >= floor, weights, 0.0), axis=0)
                tl.store(totals_ptr + row, total)


@triton.jit
def _search(
    candidates_ptr, num_candidates, bin, needed, IS_TOP_K: tl.constexpr, PART: tl.constexpr
):
    """The largest floor in the bin at which the tokens above it still reach `needed`."""
    low = tl.where(bin == BINS - 1, 0, ONE_BITS - _depth(bin + 1) + 1)
    high = ONE_BITS - _depth(bin) + 1
    # Three floors at a time settle two bits. Each lane sums its own tokens; the lanes' sums are
    # added once per turn.
    while high - low > 1:
        step = (high - low + 3) // 4
        first = tl.zeros((PART,), tl.float32)
        second, third = first, first
        for start in tl.range(0, num_candidates, PART):
            bits = _candidates(candidates_ptr, start, num_candidates, PART)
            weights = bits.to(tl.float32, bitcast=True)
            counted = (bits >= 0).to(tl.float32) if IS_TOP_K else weights
            first += tl.where(bits >= low + step, counted, 0.0)
            second += tl.where(bits >= low + 2 * step, counted, 0.0)
            third += tl.where(bits >= low + 3 * step, counted, 0.0)
        # At `low` there is enough; a floor past the interval is too large.
        num_enough = _is_enough(first, needed, low + step, high)
        num_enough += _is_enough(second, needed, low + 2 * step, high)
        num_enough += _is_enough(third, needed, low + 3 * step, high)
        low += num_enough * step
        high = tl.minimum(high, low + step)
    return low


@triton.jit
def _is_enough(sums, needed, floor, high):
    return ((tl.sum(sums, axis=0) >= needed) & (floor < high)).to(tl.int32)


@triton.jit
def weights_of(
    logits_ptr,
    part,
    temperature,
    maxima_ptr,
    row,
    vocab_size,
    PART: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The weights of a part's tokens, and a mask of the places that hold tokens."""
    parts = tl.arange(0, PARTS)
    num_parts = tl.num_programs(0)
    maxima_ptr += row * num_parts
    best = tl.max(tl.load(maxima_ptr + parts, mask=parts < num_parts, other=-float("inf")), axis=0)
    columns = part * PART + tl.arange(0, PART)
    is_token = columns < vocab_size
    logits = tl.load(logits_ptr + columns, mask=is_token, other=-float("inf"))
    return tl.where(is_token, tl.exp((logits - best) / temperature), 0.0), is_token


@triton.jit
def _bins(weights):
    """Each weight's bin, the heaviest first."""
    depth = ONE_BITS - weights.to(tl.int32, bitcast=True)
    narrow = depth >> NARROW_BITS
    wide = NARROW_BINS + ((depth - (NARROW_BINS << NARROW_BITS)) >> WIDE_BITS)
    return tl.minimum(tl.maximum(tl.where(narrow < NARROW_BINS, narrow, wide), 0), BINS - 1)


@triton.jit
def _depth(bin):
    """The distance of the bin's start below the bits of 1.0."""
    wide = (NARROW_BINS << NARROW_BITS) + ((bin - NARROW_BINS) << WIDE_BITS)
    return tl.where(bin < NARROW_BINS, bin << NARROW_BITS, wide)


@triton.jit
def _candidates(candidates_ptr, start, num_candidates, PART: tl.constexpr):
    """The bits of PART candidates' weights; −1, below every floor, past the last candidate."""
    places = start + tl.arange(0, PART)
    return tl.load(candidates_ptr + places, mask=places < num_candidates, other=-1)
