"""One request inside the engine: its tokens, its counters, its status. No tensors.

Invariant: a sequence's state has consumed exactly its first `num_computed_tokens` tokens. The last
token is always left to feed, because a state alone gives no logits.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass, field

from falcon_mamba_app.engine.matching import Matcher
from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.protocol import FinishReason, SamplingParams

LEAST_WEIGHT_OF_PEOPLE = 0.001


class Status(enum.Enum):
    WAITING = "waiting"  # no slot yet, or none at the moment
    PREFILLING = "prefilling"  # reading prompt[:-1]
    DECODING = "decoding"  # one token a step
    FINISHED = "finished"  # no slot any more


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A prompt, its reply so far, and the number of tokens that its state has read."""

    seq_id: int
    prompt_token_ids: SequenceABC[int]
    sampling: SamplingParams
    seed: int  # the request's own, or a drawn one
    session_id: str | None = None
    is_aside: bool = False  # it saves no state for its session
    reuse_id: str | None = None  # states under this name are shared between requests
    begins_from: str | None = None  # a book, whose states are read and never written here
    save_points: tuple[int, ...] = ()  # rising places in the prompt where others may begin
    owner: str = ""  # the slot counts as part of this owner's share
    weight: float = 1.0  # a sequence of weight 4 counts as a quarter of a slot
    score_prompt: int | None = None  # alternatives per prompt token; None scores nothing
    matcher: Matcher | None = None  # says which tokens may come next; None allows all
    output_token_ids: list[int] = field(default_factory=list)
    status: Status = Status.WAITING
    slot: int | None = None
    num_computed_tokens: int = 0
    num_in_flight: int = 0  # decode steps launched whose token the host has not read yet
    queue_position: int | None = None  # as last reported; 1 is next
    is_suspect: bool = False  # was in a failed step, and in no successful one since
    num_replayed_tokens: int = 0  # reply tokens that are read again as if they were prompt
    num_told_tokens: int = 0  # prompt tokens that were read at least once
    arrival: int = 0  # set by the scheduler; smaller is older
    parked: State | None = None  # its state, while another sequence has its slot
    packed_prompt: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        # Here and not in a step: packing a list of 100,000 ids takes 2 ms.
        if self.origins:
            self.packed_prompt = pack_token_ids(self.prompt_token_ids)

    @property
    def is_background(self) -> bool:
        """Whether everybody else's work comes first, whatever the shares."""
        return self.weight < LEAST_WEIGHT_OF_PEOPLE

    @property
    def origins(self) -> tuple[str, ...]:
        """The names of the states that this sequence may begin from."""
        names = (self.session_id, self.reuse_id, self.begins_from)
        return tuple(name for name in names if name is not None)

    @property
    def num_prefill_tokens(self) -> int:
        """Tokens to read before the next can be sampled; the last one is fed by decode."""
        return len(self.prompt_token_ids) + self.num_replayed_tokens - 1

    @property
    def num_remaining_prefill_tokens(self) -> int:
        return self.num_prefill_tokens - self.num_computed_tokens

    @property
    def num_tokens_to_save_point(self) -> int:
        """The number of tokens that one chunk may read."""
        ahead = [p for p in self.save_points if p > self.num_computed_tokens]
        return min([*ahead, self.num_prefill_tokens]) - self.num_computed_tokens

    def tokens(self, start: int, end: int) -> list[int]:
        """The tokens of prompt and reply from `start` up to `end`."""
        num_prompt = len(self.prompt_token_ids)
        prompt = list(self.prompt_token_ids[start:end])
        if end <= num_prompt:
            return prompt
        return prompt + self.output_token_ids[max(0, start - num_prompt) : end - num_prompt]

    def begin_again(self) -> None:
        """Discard the state: all known tokens are read again, in steps that run alone."""
        self.num_computed_tokens, self.num_replayed_tokens = 0, len(self.output_token_ids)
        self.status = Status.PREFILLING if self.num_prefill_tokens else Status.DECODING
        self.is_suspect = True
        if self.output_token_ids:
            self.score_prompt = None  # it has been scored

    @property
    def num_launched_tokens(self) -> int:
        """Tokens of the reply that are sampled or being sampled."""
        return len(self.output_token_ids) + self.num_in_flight

    @property
    def next_token_id(self) -> int | None:
        """The token that the next decode step feeds; None while only the device knows it."""
        if self.num_launched_tokens == 0:
            return self.prompt_token_ids[-1]
        return None if self.num_in_flight else self.output_token_ids[-1]

    def finish_reason(self, eos_token_ids: frozenset[int]) -> FinishReason | None:
        """Why the reply ends after its last token; None while it goes on."""
        if self.output_token_ids[-1] in eos_token_ids and not self.sampling.ignore_eos:
            return "stop"
        return "length" if len(self.output_token_ids) >= self.sampling.max_new_tokens else None

    @property
    def packed_computed(self) -> bytes:
        """The tokens that the state has consumed, packed; for sequences that keep states."""
        num_output = self.num_computed_tokens - len(self.prompt_token_ids)
        if num_output < 0:
            return self.packed_prompt[: self.num_computed_tokens * ID_BYTES]
        return self.packed_prompt + pack_token_ids(self.output_token_ids[:num_output])
