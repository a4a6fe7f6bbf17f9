"""The choice of the next token in plain torch: logits and each row's parameters in, token ids out.

Each filter sees only the tokens that the filters before it kept. Then one uniform number per row
picks the token by inverting the cumulative sum of the kept probabilities. This module knows no
seeds and no penalties.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

# The number of most likely tokens that are sorted first. Only a flatter distribution needs the full
# sort, which takes 30 times longer at 8,192 tokens.
NUM_SORTED_FIRST = 256
# Stands for a token where the logits choose none.
NO_TOKEN = -1
# The logit of a token that must not be drawn. It is finite, because a logit that is not finite
# means that the model failed. Logits below half of it do not count for the standard deviation.
LEAST_LOGIT = -1e30


class Column(IntEnum):
    """Columns of the rows' parameters, in the order of the filters. All but the last two have the
    names of a request's fields.
    """

    TEMPERATURE = 0  # 0 is greedy; the filters are ignored
    TOP_K = 1  # 0 keeps all
    TOP_P = 2  # 1 keeps all
    MIN_P = 3  # 0 keeps all
    TOP_N_SIGMA = 4  # 0 keeps all
    TYPICAL_P = 5  # 1 keeps all
    XTC_PROBABILITY = 6  # 0 keeps all
    XTC_THRESHOLD = 7
    XTC_UNIFORM = 8  # in [0, 1): the filter applies if it is below XTC_PROBABILITY
    UNIFORM = 9  # in [0, 1): picks the token


def sample(logits: Tensor, params: Tensor) -> Tensor:
    """`Ops.sample`. It reads the numbers to skip work, which is cheap only on a CPU.

    Args:
        logits: (b, v) fp32.
        params: (b, len(Column)) fp32.

    Returns:
        (b,) int64; NO_TOKEN for a row that holds +infinity or NaN, or only −infinity.
    """
    best, greedy = logits.max(-1)  # NaN counts as the largest
    greedy = greedy.masked_fill(~best.isfinite(), NO_TOKEN)
    values = dict(zip(Column, params.split(1, dim=1), strict=True))
    is_greedy = values[Column.TEMPERATURE] == 0
    if bool(is_greedy.all()):
        return greedy
    # The maximum is subtracted first: at a temperature of 1e-4 the quotient alone could overflow.
    shifted = logits - logits.amax(-1, keepdim=True)
    probs = torch.softmax(shifted / values[Column.TEMPERATURE].masked_fill(is_greedy, 1.0), -1)
    _drop_unlikely(probs, values[Column.TOP_K].long(), values[Column.TOP_P], values[Column.MIN_P])
    _drop_far_below_the_best(probs, shifted, values[Column.TOP_N_SIGMA])
    _drop_untypical(probs, values[Column.TYPICAL_P])
    is_in_force = values[Column.XTC_UNIFORM] < values[Column.XTC_PROBABILITY]
    _drop_top_choices(probs, values[Column.XTC_THRESHOLD], is_in_force)
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    drawn = torch.searchsorted(cumulative, values[Column.UNIFORM] * total, right=True)
    # The product can round up to the total: then take the last token with any probability.
    drawn = torch.minimum(drawn, torch.searchsorted(cumulative, total))
    is_greedy |= greedy.unsqueeze(1) == NO_TOKEN
    return torch.where(is_greedy, greedy.unsqueeze(1), drawn).squeeze(1)


def _drop_unlikely(probs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> None:
    """Zero, in place, the probabilities (b, v) that top_k, top_p and min_p exclude; ties at the
    edge stay.
    """
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


def _drop_far_below_the_best(probs: Tensor, shifted: Tensor, top_n_sigma: Tensor) -> None:
    """Zero, in place, tokens whose logit is more than n standard deviations below the best one
    (arXiv 2411.07641). shifted (b, v): the logits less the best.
    """
    if not bool((top_n_sigma > 0).any()):
        return
    is_logit = shifted > LEAST_LOGIT / 2
    logits, count = shifted.masked_fill(~is_logit, 0.0), is_logit.sum(-1, keepdim=True)
    mean = logits.sum(-1, keepdim=True) / count
    variance = ((logits - mean).square() * is_logit).sum(-1, keepdim=True) / count
    lowest = (-top_n_sigma * variance.sqrt()).masked_fill(top_n_sigma == 0, -torch.inf)
    probs.masked_fill_(shifted < lowest, 0.0)


def _drop_untypical(probs: Tensor, typical_p: Tensor) -> None:
    """Keep, in place, the tokens whose surprise −ln p is nearest to the entropy: the fewest that
    hold typical_p of the mass (arXiv 2202.00666). Ties stay.
    """
    if not bool((typical_p < 1).any()):
        return
    normed = probs / probs.sum(-1, keepdim=True)
    entropy = torch.special.entr(normed).sum(-1, keepdim=True)
    distance = (-normed.log() - entropy).abs()  # infinite for dropped tokens
    ordered, order = distance.sort(-1)
    mass = normed.gather(-1, order).cumsum(-1)
    last = (mass < typical_p).sum(-1, keepdim=True).clamp(max=probs.shape[-1] - 1)
    farthest = ordered.gather(-1, last).masked_fill(typical_p == 1, torch.inf)
    probs.masked_fill_(distance > farthest, 0.0)


def _drop_top_choices(probs: Tensor, threshold: Tensor, is_in_force: Tensor) -> None:
    """Of the tokens with at least `threshold` of the mass, zero in place all but the least likely
    ("exclude top choices", XTC). Ties with that one stay.
    """
    if not bool(is_in_force.any()):
        return
    is_choice = (probs >= threshold * probs.sum(-1, keepdim=True)) & (probs > 0)
    least = torch.where(is_choice, probs, torch.inf).amin(-1, keepdim=True)
    probs.masked_fill_(is_in_force & (probs > least), 0.0)
