"""Log-probabilities of tokens: tensors on the device, and the numbers read from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token's log-probability before any sampling parameter, and the likeliest ones beside it."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]
    rank: int | None = None  # 1 is the likeliest

    @property
    def is_finite(self) -> bool:
        """False where the model's logits were not finite."""
        return math.isfinite(self.logprob) and all(math.isfinite(value) for _, value in self.top)


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """Scores of t tokens, still where they were computed.

    token_ids, logprobs, ranks: (t,).  top_ids, top_logprobs: (t, number of alternatives).
    """

    token_ids: Tensor
    logprobs: Tensor
    ranks: Tensor
    top_ids: Tensor
    top_logprobs: Tensor

    def as_list(self) -> list[ScoredToken]:
        """The scores on the host; waits for the device."""
        columns = (self.token_ids, self.logprobs, self.ranks, self.top_ids, self.top_logprobs)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            ScoredToken(token_id, logprob, list(zip(ids, values, strict=True)), rank)
            for token_id, logprob, rank, ids, values in rows
        ]


def score_rows(logprobs: Tensor, token_ids: Tensor, num_top: int) -> ScoredTokens:
    """The scores of one token (t,) in each row of `logprobs` (t, v)."""
    chosen = logprobs.gather(1, token_ids.unsqueeze(1))
    ranks = (logprobs > chosen).sum(dim=-1) + 1
    top = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    return ScoredTokens(token_ids, chosen.squeeze(1), ranks, top.indices, top.values)
