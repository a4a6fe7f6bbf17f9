"""Who gets a slot, who decodes, whose prompt gets the next chunk. Integers only, no tensors.

Every decoding row moves one token in each step; then at most `max_prefill_tokens` prompt tokens are
read, or `max_mixed_prefill_tokens` where any row decodes, so that a long prompt never stalls those
who are reading a reply.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from falcon_mamba_app.engine.sequence import Sequence, Status


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt tokens `start` to `end` (exclusive) of one sequence, to be read in this step."""

    seq: Sequence
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one step."""

    decode: list[Sequence]
    prefill: list[PrefillChunk]


class Scheduler:
    """First come, first served for slots; fair shares for prompts."""

    def __init__(
        self,
        *,
        max_running: int,
        max_prefill_tokens: int,
        max_mixed_prefill_tokens: int | None = None,
    ) -> None:
        """Without `max_mixed_prefill_tokens` nothing changes for prompts where rows decode."""
        # A zero stands for "what suits the device" in the settings; here it would never end.
        assert max_running > 0 and max_prefill_tokens > 0, f"{max_running=} {max_prefill_tokens=}"
        self._max_running = max_running
        self._max_prefill_tokens = max_prefill_tokens
        mixed = max_prefill_tokens if max_mixed_prefill_tokens is None else max_mixed_prefill_tokens
        self._max_mixed_prefill_tokens = min(mixed, max_prefill_tokens)
        assert self._max_mixed_prefill_tokens > 0, f"{max_mixed_prefill_tokens=}"
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, seq: Sequence) -> None:
        """Put the sequence at the end of the line."""
        assert seq.status is Status.WAITING, f"{seq.status=}"
        self.waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Take the sequence out, wherever it stands."""
        (self.waiting if seq.status is Status.WAITING else self.running).remove(seq)

    def admit(self) -> list[Sequence]:
        """Move sequences from the line into the free places; the caller gives them their slots."""
        admitted = []
        while self.waiting and len(self.running) < self._max_running:
            seq = self.waiting.popleft()
            self.running.append(seq)
            admitted.append(seq)
        return admitted

    def plan(self) -> Plan:
        """What the next step does for the running sequences; a suspect has its steps to itself."""
        suspect = next((seq for seq in self.running if seq.is_suspect), None)
        running = self.running if suspect is None else [suspect]
        decode = [
            seq
            for seq in running
            if seq.status is Status.DECODING
            and seq.num_launched_tokens < seq.sampling.max_new_tokens
        ]
        budget = self._max_mixed_prefill_tokens if decode else self._max_prefill_tokens
        return Plan(decode, self._plan_prefill(running, budget))

    def _plan_prefill(self, running: list[Sequence], budget: int) -> list[PrefillChunk]:
        """Split the budget evenly; what short prompts leave over goes to the longer ones."""
        prefilling = [seq for seq in running if seq.status is Status.PREFILLING]
        prefilling.sort(key=lambda seq: seq.num_remaining_prefill_tokens)
        chunks = []
        for num_before, seq in enumerate(prefilling):
            share = budget // (len(prefilling) - num_before)
            num_tokens = min(share, seq.num_remaining_prefill_tokens)
            if num_tokens == 0:  # more prompts than tokens in the budget: the shortest go first
                num_tokens = min(1, budget)
            if num_tokens:
                start = seq.num_computed_tokens
                chunks.append(PrefillChunk(seq, start, start + num_tokens))
            budget -= num_tokens
        return chunks
