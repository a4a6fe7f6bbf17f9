"""One request inside the engine: its tokens, its counters, its status. No tensors.

The one fact: a sequence's state has consumed exactly its first `num_computed_tokens` tokens. The
last token is always left to feed, because a state alone gives no logits.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.protocol import SamplingParams


class Status(enum.Enum):
    WAITING = "waiting"  # no slot yet, or none at the moment
    PREFILLING = "prefilling"  # reading prompt[:-1]
    DECODING = "decoding"  # one token a step
    FINISHED = "finished"  # no slot any more


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A prompt, what has been written after it, and how far its state has come."""

    seq_id: int
    prompt_token_ids: list[int]
    sampling: SamplingParams
    seed: int  # of this request, resolved
    session_id: str | None = None
    reuse_id: str | None = None  # whose states it may begin from, and leaves some for
    save_points: tuple[int, ...] = ()  # of the prompt: where others may want to begin, rising
    owner: str = ""  # whose share of the slots it takes
    weight: float = 1.0  # one of weight 4 takes a quarter of a share
    score_prompt: int | None = None  # alternatives per prompt token; None scores nothing
    output_token_ids: list[int] = field(default_factory=list)
    status: Status = Status.WAITING
    slot: int | None = None
    num_computed_tokens: int = 0
    num_in_flight: int = 0  # decode steps launched whose token the host has not read yet
    queue_position: int | None = None  # as last reported; 1 is next
    is_suspect: bool = False  # was in a step that failed, and has not been in a good one since
    num_replayed_tokens: int = 0  # of the reply, read again as if they were prompt
    num_told_tokens: int = 0  # of the prompt, read at least once
    arrival: int = 0  # set by the scheduler; smaller is older
    parked: State | None = None  # its state, while it has given its slot to somebody else
    packed_prompt: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        # Once and here: packing 100,000 ids takes 2 ms, which no step should wait for.
        if self.session_id is not None or self.reuse_id is not None:
            self.packed_prompt = pack_token_ids(self.prompt_token_ids)

    @property
    def num_prefill_tokens(self) -> int:
        """Tokens to read before the next can be sampled; the last one is fed by decode."""
        return len(self.prompt_token_ids) + self.num_replayed_tokens - 1

    @property
    def num_remaining_prefill_tokens(self) -> int:
        return self.num_prefill_tokens - self.num_computed_tokens

    @property
    def num_tokens_to_save_point(self) -> int:
        """How much may be read in one piece."""
        ahead = [p for p in self.save_points if p > self.num_computed_tokens]
        return min([*ahead, self.num_prefill_tokens]) - self.num_computed_tokens

    def tokens(self, start: int, end: int) -> list[int]:
        """Of the prompt and the reply, from `start` up to `end`."""
        num_prompt = len(self.prompt_token_ids)
        prompt = self.prompt_token_ids[start:end]
        if end <= num_prompt:
            return prompt
        return prompt + self.output_token_ids[max(0, start - num_prompt) : end - num_prompt]

    def begin_again(self) -> None:
        """Nothing is computed: all that is known is read again, in steps of the sequence's own."""
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

    @property
    def packed_computed(self) -> bytes:
        """What the state has consumed, packed; for sequences that keep states."""
        num_output = self.num_computed_tokens - len(self.prompt_token_ids)
        if num_output < 0:
            return self.packed_prompt[: self.num_computed_tokens * ID_BYTES]
        return self.packed_prompt + pack_token_ids(self.output_token_ids[:num_output])
