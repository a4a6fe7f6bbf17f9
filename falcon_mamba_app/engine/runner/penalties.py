"""Changes to a row's logits before the draw, and the random number that decides the draw.

The number is derived from (seed, position) alone, and the draw is a pure function of logits,
parameters and that number (`ops/reference/sampling.py`). So a seeded request draws the same tokens
whatever other requests share its batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from operator import attrgetter

import torch
from torch import Tensor

from falcon_mamba_app.engine.sequence import Sequence, Status
from falcon_mamba_app.ops.reference.sampling import LEAST_LOGIT, Column
from falcon_mamba_app.protocol import SamplingParams

# The packed parameters are fp32, which is exact for whole numbers up to here.
# No vocabulary is larger.
MAX_TOP_K = 2**24

_MASK = 2**64 - 1
_of_request = attrgetter(*(column.name.lower() for column in Column if column < Column.XTC_UNIFORM))
XTC_POSITION = -1  # no token of a reply has it


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for this position of this request's reply; splitmix64, counter-based."""
    z = (_mix(seed & _MASK) + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    return (_mix(z) >> 40) * 2.0**-24  # 24 bits: exact in fp32, so never rounded up to 1


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class TokenCounts:
    """The input of a request's penalties: which tokens occur, and how often in the reply."""

    def __init__(self, prompt: Iterable[int], *, vocab_size: int, device: torch.device) -> None:
        self.is_present = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        packed = torch.frombuffer(array("i", prompt), dtype=torch.int32)
        self.is_present[packed.to(device, torch.int64)] = True
        self.num_in_output = torch.zeros(vocab_size, device=device)

    def add(self, token_id: Tensor) -> None:
        """Count tokens that were added to the reply, (t,) int64."""
        self.is_present.index_fill_(0, token_id, True)
        self.num_in_output.index_add_(0, token_id, torch.ones_like(token_id, dtype=torch.float32))


def needs_counts(params: SamplingParams) -> bool:
    """Whether any penalty is active."""
    penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
    return penalties != (1, 0, 0)


def needs_changes(seq: Sequence) -> bool:
    """Whether the sequence's next logits are changed before the draw."""
    params = seq.sampling
    return bool(params.logit_bias) or _is_too_early_to_end(seq) or needs_counts(params)


def _is_too_early_to_end(seq: Sequence) -> bool:
    return seq.num_launched_tokens < seq.sampling.min_tokens


def penalize(logits: Tensor, params: SamplingParams, counts: TokenCounts) -> None:
    """Apply one row's penalties to its logits (v,) in place."""
    if params.repetition_penalty != 1:
        factor = params.repetition_penalty
        penalized = torch.where(logits > 0, logits / factor, logits * factor)
        torch.where(counts.is_present, penalized, logits, out=logits)
    logits.sub_(counts.num_in_output, alpha=params.frequency_penalty)
    logits.sub_(counts.num_in_output.clamp(max=1), alpha=params.presence_penalty)


class Penalties:
    """Applies the requests' changes to their logits. The counts of a request with penalties are
    made at its first step.
    """

    def __init__(
        self, vocab_size: int, device: torch.device, eos_token_ids: frozenset[int]
    ) -> None:
        self._vocab_size, self._device, self._eos_ids = vocab_size, device, eos_token_ids
        self._counts: dict[int, TokenCounts] = {}  # by seq_id

    def apply(self, logits: Tensor, rows: list[Sequence]) -> None:
        """Change the logits (b, v) of the rows that request it, in place."""
        for i, seq in enumerate(rows):
            if seq.sampling.logit_bias:
                ids, biases = zip(*seq.sampling.logit_bias, strict=True)
                logits[i].index_add_(0, self._tensor(ids), self._tensor(biases))
            if needs_counts(seq.sampling):
                penalize(logits[i], seq.sampling, self._counts_of(seq))
            if _is_too_early_to_end(seq):
                ends = sorted(self._eos_ids | set(seq.sampling.stop_token_ids))
                within = [token_id for token_id in ends if token_id < self._vocab_size]
                logits[i].index_fill_(0, self._tensor(within), LEAST_LOGIT)

    def count(self, sampled: Tensor, rows: list[Sequence]) -> None:
        """Count the rows' tokens, (b,) int64; for NO_TOKEN the count does not matter. A row that
        has finished since the launch has no counts.
        """
        for i, seq in enumerate(rows):
            if needs_counts(seq.sampling) and seq.status is not Status.FINISHED:
                self._counts_of(seq).add(sampled[i : i + 1].clamp(min=0))

    def _counts_of(self, seq: Sequence) -> TokenCounts:
        """The counts up to the last sampled token, made at the sequence's first step."""
        if seq.seq_id not in self._counts:
            counts = TokenCounts(
                seq.prompt_token_ids,
                vocab_size=self._vocab_size,
                device=self._device,
            )
            if seq.output_token_ids:
                counts.add(torch.tensor(seq.output_token_ids, device=self._device))
            self._counts[seq.seq_id] = counts
        return self._counts[seq.seq_id]

    def _tensor(self, values: Collection[int] | Collection[float]) -> Tensor:
        dtype = torch.float32 if isinstance(next(iter(values), 0), float) else torch.int64
        return torch.tensor(list(values), dtype=dtype, device=self._device)

    def drop(self, seq: Sequence) -> None:
        """Forget the sequence's counts."""
        self._counts.pop(seq.seq_id, None)


def pack_params(rows: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """The rows' parameters as `Ops.sample` takes them, (b, len(Column)) fp32 in host memory.

    A uniform number decides its row's draw; one derived from it decides whether XTC applies.
    """
    values = [
        (*_of_request(row), uniform(int(number * 2**24), XTC_POSITION), number)
        for row, number in zip(rows, uniforms, strict=True)
    ]
    params = torch.tensor(values, dtype=torch.float32)
    params[:, Column.TOP_K].clamp_(max=MAX_TOP_K)
    return params
