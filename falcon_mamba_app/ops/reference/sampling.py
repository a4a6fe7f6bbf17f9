"""The choice of the next token in plain torch: logits and each row's parameters in, token ids out.

One uniform number per row picks the token by inverting the cumulative sum of what the filters
leave, in the order temperature, top_k, top_p, min_p. It knows no seeds and no penalties.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The most likely tokens that are sorted first; only a flatter distribution needs the full sort,
# which takes 30 times longer at 8,192 tokens.
NUM_SORTED_FIRST = 256
# In place of a token where the logits choose none.
NO_TOKEN = -1


def sample(logits: Tensor, params: Tensor) -> Tensor:
    """One token for each row. It looks at the numbers to skip work, which only a CPU does cheaply.

    Args:
        logits: (b, v) fp32.
        params: (b, 5) fp32: temperature (0 is greedy), top_k (0 keeps all), top_p, min_p and a
            uniform number in [0, 1) for each row.

    Returns:
        (b,) int64; NO_TOKEN for a row of which any number is +infinity or none at all, or that
        holds nothing but −infinity.
    """
    best, greedy = logits.max(-1)  # no number counts as the largest
    greedy = greedy.masked_fill(~best.isfinite(), NO_TOKEN)
    temperature, top_k, top_p, min_p, uniforms = params.split(1, dim=1)
    is_greedy = temperature == 0
    if bool(is_greedy.all()):
        return greedy
    # The maximum is subtracted first: at a temperature of 1e-4 the quotient alone could overflow.
    shifted = logits - logits.amax(-1, keepdim=True)
    probs = torch.softmax(shifted / temperature.masked_fill(is_greedy, 1.0), -1)
    _drop_unlikely(probs, top_k.long(), top_p, min_p)
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    drawn = torch.searchsorted(cumulative, uniforms * total, right=True)
    # The product can round up to the total; the last token with any probability is then meant.
    drawn = torch.minimum(drawn, torch.searchsorted(cumulative, total))
    is_greedy |= greedy.unsqueeze(1) == NO_TOKEN
    return torch.where(is_greedy, greedy.unsqueeze(1), drawn).squeeze(1)


def _drop_unlikely(probs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> None:
    """Zero, in place, what top_k, top_p and min_p exclude of (b, v); ties at the edge stay."""
    if bool((top_k > 0).any()):
        probs.masked_fill_(probs < _top_k_edge(probs, top_k), 0.0)
    if bool((top_p < 1).any()):
        probs.masked_fill_(probs < _top_p_edge(probs, top_p), 0.0)
    if bool((min_p > 0).any()):
        probs.masked_fill_(probs < min_p * probs.amax(-1, keepdim=True), 0.0)


def _top_k_edge(probs: Tensor, top_k: Tensor) -> Tensor:
    """(b, 1): the k-th largest probability of each row; 0 where top_k is 0."""
    ranks = top_k.clamp(max=probs.shape[-1])
    ordered = probs.topk(int(ranks.max())).values
    return ordered.gather(1, (ranks - 1).clamp(min=0)).masked_fill(top_k == 0, 0.0)


def _top_p_edge(probs: Tensor, top_p: Tensor) -> Tensor:
    """(b, 1): the smallest probability among the fewest tokens that hold top_p of the mass."""
    needed = top_p * probs.sum(-1, keepdim=True)
    ordered = probs.topk(min(NUM_SORTED_FIRST, probs.shape[-1])).values
    if bool(((ordered.sum(-1, keepdim=True) < needed) & (top_p < 1)).any()):
        ordered = probs.sort(-1, descending=True).values
    mass_before = ordered.cumsum(-1) - ordered
    num_kept = (mass_before < needed).sum(-1, keepdim=True)
    return ordered.gather(1, (num_kept - 1).clamp(min=0)).masked_fill(top_p == 1, 0.0)
