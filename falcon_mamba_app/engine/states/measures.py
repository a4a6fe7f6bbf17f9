"""Figures of states on the host: how full, how far from another one, how fast they forget.

Knows no session and no device: its tensors are copies in host memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY = 1e-30  # an empty layer is nowhere far from anything
MAX_HALF_LIFE = 1e9  # tokens; what forgets more slowly than this has no meaning in fp32


def norms(ssm: Tensor) -> tuple[float, ...]:
    """The root mean square of each layer's numbers. ssm: (l, n, d)."""
    return tuple((_lengths(ssm) / math.sqrt(ssm[0].numel())).tolist())


def distances(ssm: Tensor, other: Tensor | None) -> tuple[float, tuple[float, ...]]:
    """‖ssm − other‖ / ‖ssm‖, both (l, n, d): of all numbers together, and of each layer. None is
    the empty state.
    """
    apart = _lengths(ssm if other is None else ssm - other)
    own = _lengths(ssm).clamp(min=TINY)
    together = apart.square().sum().sqrt() / own.square().sum().sqrt()
    return float(together), tuple((apart / own).tolist())


def half_lives(
    rates: Tensor, shares: tuple[float, ...], bounds: tuple[float, ...]
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """For each layer: the half-lives below which these shares of its numbers lie, and the share of
    numbers in each interval between the bounds.

    rates: (l, n, d), −Δ·A: a number keeps exp(−rate) of itself at each token.
    """
    return [_of_layer(layer.flatten().double(), shares, bounds) for layer in rates]


def divergence(logprobs: Tensor, other: Tensor) -> Tensor:
    """The Kullback–Leibler divergence D(logprobs ‖ other) of each row, (t, v) → (t,), in nats."""
    one = logprobs.double()
    p = one.exp()
    return torch.where(p > 0, p * (one - other.double()), 0.0).sum(-1).clamp(min=0.0)


def _of_layer(
    rates: Tensor, shares: tuple[float, ...], bounds: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    tokens = (math.log(2) / rates.clamp(min=math.log(2) / MAX_HALF_LIFE)).sort().values
    places = [round(share * (len(tokens) - 1)) for share in shares]
    edges = torch.searchsorted(tokens, torch.tensor(bounds, dtype=tokens.dtype)).tolist()
    counts = [end - start for start, end in zip([0, *edges], [*edges, len(tokens)], strict=True)]
    return tuple(tokens[places].tolist()), tuple(count / len(tokens) for count in counts)


def _lengths(ssm: Tensor) -> Tensor:
    """The Euclidean length of each layer, (l,) fp64."""
    lengths: Tensor = torch.linalg.vector_norm(ssm.flatten(1), dim=1, dtype=torch.float64)
    return lengths
