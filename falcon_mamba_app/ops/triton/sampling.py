"""The choice of the next token as Triton kernels: rows of logits in, a token for each out.

`reference/sampling.py` states the rule in plain torch, where a sort finds the floors of top_k and
top_p. Here `top_k_top_p.py` finds them by counting. So nothing waits for the host, and a step's
sampling can be captured in its graph. Several programs share a row, one for each PART of the
vocabulary: one program with the whole row in registers would take ten times longer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.sampling import NO_TOKEN, Column
from falcon_mamba_app.ops.triton.later_filters import WARPS, later_filters_kernel
from falcon_mamba_app.ops.triton.overlap import OVERLAPPED, start_next, wait_for_inputs
from falcon_mamba_app.ops.triton.top_k_top_p import (
    BINS,
    TEMPERATURE,
    cutoff_kernel,
    histogram_kernel,
    weights_of,
)

# Tokens per program: 32 programs share a row of 65,024.
PART = 2048
# Stands for the largest logit of a row that holds +infinity or NaN.
_INFINITE = tl.constexpr(float("inf"))
_NO_TOKEN = tl.constexpr(NO_TOKEN)
MIN_P, UNIFORM = tl.constexpr(int(Column.MIN_P)), tl.constexpr(int(Column.UNIFORM))
# Up to this number of rows the GPU is mostly idle, so more warps share one program's work.
FEW_ROWS = 8


def sample(logits: Tensor, params: Tensor) -> Tensor:
    """`Ops.sample` on the device, without a sync."""
    assert logits.stride(1) == 1 and params.stride(1) == 1, (logits.stride(), params.stride())
    num_rows, vocab_size = logits.shape
    num_parts = triton.cdiv(vocab_size, PART)

    def scratch(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty((num_rows, *shape), dtype=dtype, device=logits.device)

    tokens = scratch(dtype=torch.int64)
    maxima = scratch(num_parts, dtype=torch.float32)
    places = scratch(num_parts)  # where the maxima are
    counts = scratch(num_parts, BINS.value)
    masses = scratch(num_parts, BINS.value, dtype=torch.float32)
    candidates = scratch(vocab_size)  # bits of the weights in the searched bin
    floors = scratch()  # bits of the smallest kept weight
    ceilings = scratch()  # bits of the largest kept weight
    totals = scratch(dtype=torch.float32)  # sums of the weights that top_k keeps
    num_done = scratch(3)  # programs that have finished their part of a row
    row = (logits, logits.stride(0), params, params.stride(0), maxima, vocab_size)
    launch = {"num_warps": 8 if num_rows <= FEW_ROWS else 4, **OVERLAPPED}
    sizes = (PART, triton.next_power_of_2(num_parts))
    grid = (num_parts, num_rows)
    _maxima_kernel[grid](*row[:2], maxima, places, floors, num_done, vocab_size, PART, **launch)
    histogram_kernel[grid](*row, counts, masses, *sizes, **launch)
    searched = (counts, masses, candidates, floors, totals, num_done)
    cutoff_kernel[grid](*row, *searched, True, *sizes, **launch)
    cutoff_kernel[grid](*row, *searched, False, *sizes, **launch)
    later_filters_kernel[(num_rows,)](
        *row, floors, ceilings, num_parts, sizes[1], num_warps=WARPS, **OVERLAPPED
    )
    # `masses` is free now; the draw keeps each part's weight there.
    _draw_kernel[grid](*row, places, floors, ceilings, masses, num_done, tokens, *sizes, **launch)
    return tokens


@triton.jit
def _maxima_kernel(
    logits_ptr,
    stride,
    maxima_ptr,
    places_ptr,
    floors_ptr,
    num_done_ptr,
    vocab_size,
    PART: tl.constexpr,
):
    """The largest logit of each part and its first place; also resets the search."""
    start_next()
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = part * PART + tl.arange(0, PART)
    wait_for_inputs()
    is_token = columns < vocab_size
    logits = tl.load(logits_ptr + row * stride + columns, mask=is_token, other=-float("inf"))
    # A maximum ignores NaN.
    logits = tl.where(logits == logits, logits, _INFINITE)
    best = tl.max(logits, axis=0)
    place = row * tl.num_programs(0) + part
    tl.store(maxima_ptr + place, best)
    tl.store(places_ptr + place, tl.min(tl.where(logits == best, columns, vocab_size), axis=0))
    if part == 0:
        tl.store(floors_ptr + row, 0)
        for i in tl.static_range(3):
            tl.store(num_done_ptr + row * 3 + i, 0)


# The alignment of a step's parameters depends on its number of rows; a kernel that knew it would
# not be faster.
@triton.jit(do_not_specialize_on_alignment=["params_ptr"])
def _draw_kernel(
    logits_ptr,
    stride,
    params_ptr,
    params_stride,
    maxima_ptr,
    vocab_size,
    places_ptr,
    floors_ptr,
    ceilings_ptr,
    kept_ptr,
    num_done_ptr,
    tokens_ptr,
    PART: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The token at which the running sum of the kept weights passes uniform × total."""
    start_next()
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    num_parts = tl.num_programs(0)
    params_ptr += row * params_stride
    logits_ptr += row * stride
    parts = tl.arange(0, PARTS)
    is_part, of_parts = parts < num_parts, row * num_parts + parts
    wait_for_inputs()
    temperature, min_p = tl.load(params_ptr + TEMPERATURE), tl.load(params_ptr + MIN_P)
    maxima = tl.load(maxima_ptr + of_parts, mask=is_part, other=-float("inf"))
    best = tl.max(maxima, axis=0)
    if tl.abs(best) == _INFINITE:
        tl.store(tokens_ptr + row, _NO_TOKEN)
    elif temperature == 0.0:
        places = tl.load(places_ptr + of_parts, mask=is_part, other=vocab_size)
        is_best = maxima == best
        tl.store(tokens_ptr + row, tl.min(tl.where(is_best, places, vocab_size), axis=0))
    else:
        floor, ceiling = tl.load(floors_ptr + row), tl.load(ceilings_ptr + row)
        weights = _kept(
            logits_ptr, part, temperature, maxima_ptr, row, vocab_size, floor, ceiling, min_p,
            PART, PARTS,
        )  # fmt: skip
        kept_ptr += row * num_parts * BINS
        tl.store(kept_ptr + part, tl.sum(weights, axis=0))
        tl.debug_barrier()
        if tl.atomic_add(num_done_ptr + row * 3 + 2, 1) == num_parts - 1:
            kept = tl.load(kept_ptr + parts, mask=is_part, other=0.0)
            target = tl.load(params_ptr + UNIFORM) * tl.sum(kept, axis=0)
            drawn = tl.sum((tl.cumsum(kept, axis=0) <= target).to(tl.int32), axis=0)
            # Rounding can push the target to the total: then take the last token with any weight.
            drawn = tl.minimum(drawn, tl.max(tl.where(kept > 0.0, parts, 0), axis=0))
            before = tl.sum(tl.where(parts < drawn, kept, 0.0), axis=0)
            weights = _kept(
                logits_ptr, drawn, temperature, maxima_ptr, row, vocab_size, floor, ceiling, min_p,
                PART, PARTS,
            )  # fmt: skip
            sums = before + tl.cumsum(weights, axis=0)
            place = tl.sum((sums <= target).to(tl.int32), axis=0)
            last = tl.max(tl.where(weights > 0.0, tl.arange(0, PART), 0), axis=0)
            tl.store(tokens_ptr + row, drawn * PART + tl.minimum(place, last))


@triton.jit
def _kept(
    logits_ptr,
    part,
    temperature,
    maxima_ptr,
    row,
    vocab_size,
    floor,
    ceiling,
    min_p,
    PART: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The weights of a part's tokens; zero for dropped tokens."""
    weights, _ = weights_of(logits_ptr, part, temperature, maxima_ptr, row, vocab_size, PART, PARTS)
    bits = weights.to(tl.int32, bitcast=True)
    is_kept = (bits >= floor) & (bits <= ceiling) & (weights >= min_p)
    return tl.where(is_kept, weights, 0.0)
