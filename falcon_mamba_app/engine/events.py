"""The events of an engine, each with the id of its sequence."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_mamba_app.engine.runner.model_runner import SampledToken
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import FinishReason


@dataclass(frozen=True, slots=True)
class Queued:
    """The sequence waits; `position` 1 is next."""

    seq_id: int
    position: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The sequence has a slot, and `num_reused_tokens` of its prompt came from a snapshot."""

    seq_id: int
    num_reused_tokens: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The sequence's state has consumed `num_computed_tokens` of its prompt."""

    seq_id: int
    num_computed_tokens: int
    num_tokens: int  # read in this step
    scores: list[ScoredToken]  # of this chunk, for sequences that score their prompt


@dataclass(frozen=True, slots=True)
class Sampled:
    """The reply has one more token, which the state has not consumed yet."""

    seq_id: int
    token: SampledToken


@dataclass(frozen=True, slots=True)
class Ended:
    """The sequence is finished and its slot is free."""

    seq_id: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The sequence has failed; `error` is for its owner."""

    seq_id: int
    error: FalconMambaError


EngineEvent = Queued | Admitted | Prefilled | Sampled | Ended | Failed
