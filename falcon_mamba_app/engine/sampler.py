"""Logits and each row's parameters in, token ids out.

A pure function: one uniform number per row, derived from (seed, position), picks the token by
inverting the distribution's cumulative sum. A row's choice depends on nothing but its own logits
and numbers, so a seeded request draws the same tokens whoever shares its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.protocol import SamplingParams

# The most likely tokens that are sorted first; only a flatter distribution needs the full sort,
# which takes 30 times longer at 8,192 tokens.
NUM_SORTED_FIRST = 256

_MASK = 2**64 - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for this position of this request's reply; splitmix64, counter-based."""
    z = (_mix(seed & _MASK) + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    return (_mix(z) >> 40) * 2.0**-24  # 24 bits: exact in fp32, so never rounded up to 1


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class TokenCounts:
    """What a request's penalties look at: which tokens occur, and how often in the reply."""

    def __init__(self, prompt: list[int], *, vocab_size: int, device: torch.device) -> None:
        self.is_present = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.is_present[torch.tensor(prompt, device=device)] = True
        self.num_in_output = torch.zeros(vocab_size, device=device)
        self.num_output_tokens = 0

    def add(self, token_ids: list[int]) -> None:
        """The reply has grown by these tokens."""
        for token_id in token_ids:
            self.is_present[token_id] = True
            self.num_in_output[token_id] += 1
        self.num_output_tokens += len(token_ids)


def needs_counts(params: SamplingParams) -> bool:
    """Whether any penalty is in force."""
    penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
    return penalties != (1, 0, 0)


def penalize(logits: Tensor, params: SamplingParams, counts: TokenCounts) -> None:
    """Apply one row's penalties to its logits (v,) in place."""
    if params.repetition_penalty != 1:
        factor = params.repetition_penalty
        penalized = torch.where(logits > 0, logits / factor, logits * factor)
        torch.where(counts.is_present, penalized, logits, out=logits)
    logits.sub_(counts.num_in_output, alpha=params.frequency_penalty)
    logits.sub_(counts.num_in_output.clamp(max=1), alpha=params.presence_penalty)


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """The rows' parameters as (b, 1) tensors; None where no row uses the parameter."""

    temperature: Tensor | None  # None: every row is greedy
    top_k: Tensor | None
    top_p: Tensor | None
    min_p: Tensor | None
    uniforms: Tensor

    @classmethod
    def of(
        cls, rows: list[SamplingParams], uniforms: list[float], *, device: torch.device
    ) -> SamplingBatch:
        def column(values: list[Any], neutral: float) -> Tensor | None:
            if all(value == neutral for value in values):
                return None
            return torch.tensor(values, device=device).unsqueeze(1)

        return cls(
            temperature=column([p.temperature for p in rows], 0.0),
            top_k=column([p.top_k for p in rows], 0),
            top_p=column([p.top_p for p in rows], 1.0),
            min_p=column([p.min_p for p in rows], 0.0),
            uniforms=torch.tensor(uniforms, device=device).unsqueeze(1),
        )


def sample(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """One token id for each row: (b, v) fp32 → (b,) int64. Rows with temperature 0 are greedy."""
    greedy = logits.argmax(-1)
    if batch.temperature is None:
        return greedy
    is_greedy = batch.temperature == 0
    # The maximum is subtracted first: at a temperature of 1e-4 the quotient alone could overflow.
    shifted = logits - logits.amax(-1, keepdim=True)
    probs = torch.softmax(shifted / batch.temperature.masked_fill(is_greedy, 1.0), -1)
    cumulative = _drop_unlikely(probs, batch).cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    drawn = torch.searchsorted(cumulative, batch.uniforms * total, right=True)
    # The product can round up to the total; the last token with any probability is then meant.
    drawn = torch.minimum(drawn, torch.searchsorted(cumulative, total))
    return torch.where(is_greedy, greedy.unsqueeze(1), drawn).squeeze(1)


def _drop_unlikely(probs: Tensor, batch: SamplingBatch) -> Tensor:
    """Zero, in place, what top_k, top_p and min_p exclude of (b, v); ties at the edge stay."""
    if batch.top_k is not None:
        probs.masked_fill_(probs < _top_k_edge(probs, batch.top_k), 0.0)
    if batch.top_p is not None:
        probs.masked_fill_(probs < _top_p_edge(probs, batch.top_p), 0.0)
    if batch.min_p is not None:
        probs.masked_fill_(probs < batch.min_p * probs.amax(-1, keepdim=True), 0.0)
    return probs


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
