"""The choice of the next token as one Triton kernel: a row's logits in, its token out.

`sampling.py` states the rule in plain torch. There a sort finds where top_k and top_p cut, and
somebody must look whether a partial sort was enough; here the cut is found by halving the interval
of possible bit patterns, so nothing waits for the device and nothing is sorted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Probabilities relative to the best one are in [0, 1]: as integers, below the bits of 1.0 plus one.
ONE_BITS = tl.constexpr(0x3F800000)
HALVINGS = tl.constexpr(31)


def sample_rows(logits: Tensor, params: Tensor) -> Tensor:
    """`sampling.sample` on the device, without a sync."""
    num_rows, vocab_size = logits.shape
    tokens = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    block = triton.next_power_of_2(vocab_size)
    _sample_kernel[(num_rows,)](
        logits, logits.stride(0), params, tokens, vocab_size, block,
        num_warps=min(32, max(4, block // 2048)),
    )  # fmt: skip
    return tokens


@triton.jit
def _sample_kernel(logits_ptr, stride, params_ptr, tokens_ptr, vocab_size, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    is_token = columns < vocab_size
    address = logits_ptr + row.to(tl.int64) * stride + columns
    logits = tl.load(address, mask=is_token, other=-float("inf"))
    best = tl.max(logits, axis=0)
    temperature = tl.load(params_ptr + row * 5)
    if temperature == 0.0:
        tl.store(tokens_ptr + row, tl.min(tl.where(logits == best, columns, BLOCK), axis=0))
    else:
        top_k = tl.load(params_ptr + row * 5 + 1)
        top_p = tl.load(params_ptr + row * 5 + 2)
        min_p = tl.load(params_ptr + row * 5 + 3)
        uniform = tl.load(params_ptr + row * 5 + 4)
        weights = tl.where(is_token, tl.exp((logits - best) / temperature), 0.0)
        if top_k > 0:
            weights = _keep_heaviest(weights, is_token.to(tl.float32), top_k)
        if top_p < 1.0:
            weights = _keep_heaviest(weights, weights, top_p * tl.sum(weights, axis=0))
        weights = tl.where(weights >= min_p, weights, 0.0)
        cumulative = tl.cumsum(weights, axis=0)
        target = uniform * tl.sum(weights, axis=0)
        drawn = tl.sum((cumulative <= target).to(tl.int32), axis=0)
        # Rounding can push the target to the total; the last token with any weight is then meant.
        last = tl.max(tl.where(weights > 0.0, columns, 0), axis=0)
        tl.store(tokens_ptr + row, tl.minimum(drawn, last))


@triton.jit
def _keep_heaviest(weights, counted, needed):
    """Zero the weights below the largest edge above which `counted` still adds up to `needed`."""
    bits = weights.to(tl.int32, bitcast=True)  # ordered as the weights are: none is negative
    low = 0
    high = ONE_BITS + 1
    for _ in range(HALVINGS):
        middle = (low + high) // 2
        is_enough = tl.sum(tl.where(bits >= middle, counted, 0.0), axis=0) >= needed
        low = tl.where(is_enough, middle, low)
        high = tl.where(is_enough, high, middle)
    return tl.where(bits >= low, weights, 0.0)
