"""Decides who gets a slot, who decodes, and whose prompt gets the next chunk. It has no tensors.

Every decoding row advances one token in each step. The step then reads at most
`max_prefill_tokens` prompt tokens, or `max_mixed_prefill_tokens` where any row decodes, so that a
long prompt never stalls the replies of others.

Slots and prompt tokens are shared by owner: the next request is the oldest one of the owner with
the smallest share. A state is copied out very fast. So an owner with many slots gives one to a
newcomer at once, in mid-prompt or mid-reply, and continues later.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

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
    """Shares slots and prompt tokens fairly; the requests of one owner keep their order."""

    def __init__(
        self,
        *,
        max_running: int,
        max_prefill_tokens: int,
        max_mixed_prefill_tokens: int | None = None,
    ) -> None:
        """Without `max_mixed_prefill_tokens` the limit is the same where rows decode."""
        # In the settings 0 means "choose for me"; here it would stop all progress.
        assert max_running > 0 and max_prefill_tokens > 0, f"{max_running=} {max_prefill_tokens=}"
        self._max_running = max_running
        self._max_prefill_tokens = max_prefill_tokens
        mixed = max_prefill_tokens if max_mixed_prefill_tokens is None else max_mixed_prefill_tokens
        self._max_mixed_prefill_tokens = min(mixed, max_prefill_tokens)
        assert self._max_mixed_prefill_tokens > 0, f"{max_mixed_prefill_tokens=}"
        self._arrivals = itertools.count()
        self.waiting: list[Sequence] = []  # in the order in which they will be admitted
        self.running: list[Sequence] = []
        self._yielding: Sequence | None = None

    def add(self, seq: Sequence) -> None:
        """Put the sequence into the queue, behind its owner's older ones."""
        assert seq.status is Status.WAITING, f"{seq.status=}"
        seq.arrival = next(self._arrivals)
        self.waiting.append(seq)
        self._order()

    def remove(self, seq: Sequence) -> None:
        """Take the sequence out, wherever it stands."""
        (self.waiting if seq.status is Status.WAITING else self.running).remove(seq)
        if seq is self._yielding:
            self._yielding = None
        self._order()

    def admit(self) -> list[Sequence]:
        """Move sequences from the queue into free places; the caller gives them their slots."""
        num_free = self._max_running - len(self.running)
        admitted, self.waiting = self.waiting[:num_free], self.waiting[num_free:]
        self.running += admitted
        return admitted

    def new_positions(self) -> list[tuple[int, int]]:
        """The seq_id and the place of each waiting sequence that has moved; place 1 is next."""
        changed = []
        for position, seq in enumerate(self.waiting, start=1):
            if seq.queue_position != position and seq.parked is None:  # a parked one began earlier
                seq.queue_position = position
                changed.append((seq.seq_id, position))
        return changed

    def choose_to_yield(self) -> Sequence | None:
        """The running sequence that should give its place to the first in the queue, or None.

        It stops decoding and reading; once none of its steps is in flight, `park` takes it out. One
        sequence yields at a time. The owner that gives a place keeps a share at least as large as
        the owner that gets it, so two owners never displace each other in turn. Background work
        gives up its last place too.
        """
        if self._yielding is None and self.waiting and len(self.running) >= self._max_running:
            shares, newcomer = _shares(self.running), self.waiting[0]
            largest = max(self.running, key=lambda seq: (shares[seq.owner], seq.arrival))
            left = shares[largest.owner] - 1 / largest.weight
            is_behind = largest.is_background and not newcomer.is_background
            if is_behind or left >= shares[newcomer.owner] + 1 / newcomer.weight:
                self._yielding = largest
        return self._yielding

    def park(self, seq: Sequence) -> None:
        """Put a running sequence back into the queue, at the place of its age."""
        self.running.remove(seq)
        self.waiting.append(seq)
        self._yielding = None
        self._order()

    def keep(self) -> None:
        """Let the yielding sequence continue."""
        self._yielding = None

    def plan(self) -> Plan:
        """The next step of the running sequences; a suspect runs alone."""
        suspect = next((seq for seq in self.running if seq.is_suspect), None)
        running = self.running if suspect is None else [suspect]
        at_work = [seq for seq in running if seq is not self._yielding]
        decode = [
            seq
            for seq in at_work
            if seq.status is Status.DECODING
            and seq.num_launched_tokens < seq.sampling.max_new_tokens
        ]
        budget = self._max_mixed_prefill_tokens if decode else self._max_prefill_tokens
        return Plan(decode, _plan_prefill(at_work, budget))

    def _order(self) -> None:
        """Sort the queue: each owner's oldest first; of these, the smallest resulting share."""
        if len(self.waiting) < 2:
            return
        shares = _shares(self.running)
        lines: defaultdict[str, list[Sequence]] = defaultdict(list)
        for seq in sorted(self.waiting, key=lambda seq: seq.arrival, reverse=True):
            lines[seq.owner].append(seq)
        heads = [_entry(line[-1], shares) for line in lines.values()]
        heapify(heads)
        self.waiting = []
        while heads:
            share, _, owner = heappop(heads)
            self.waiting.append(lines[owner].pop())
            shares[owner] = share
            if lines[owner]:
                heappush(heads, _entry(lines[owner][-1], shares))


def _plan_prefill(running: list[Sequence], budget: int) -> list[PrefillChunk]:
    """Split the budget among owners by weight, and evenly among an owner's prompts. Tokens that
    short prompts do not need go to the longer ones.
    """
    owners: defaultdict[str, list[Sequence]] = defaultdict(list)
    for seq in running:
        if seq.status is Status.PREFILLING:
            owners[seq.owner].append(seq)
    groups = sorted(owners.values(), key=_remaining)
    weights = [max(seq.weight for seq in group) for group in groups]
    chunks: list[PrefillChunk] = []
    for index, group in enumerate(groups):
        share = int(budget * weights[index] / sum(weights[index:]))
        read = _split(group, max(share, min(1, budget)))
        chunks += read
        budget -= sum(chunk.end - chunk.start for chunk in read)
    return chunks


def _shares(running: Iterable[Sequence]) -> defaultdict[str, float]:
    """Each owner's share: its slots, each divided by its sequence's weight."""
    shares: defaultdict[str, float] = defaultdict(float)
    for seq in running:
        shares[seq.owner] += 1 / seq.weight
    return shares


def _entry(seq: Sequence, shares: defaultdict[str, float]) -> tuple[float, int, str]:
    """The owner's share with this sequence added, the sequence's age, and the owner."""
    return shares[seq.owner] + 1 / seq.weight, seq.arrival, seq.owner


def _remaining(group: list[Sequence]) -> int:
    return sum(seq.num_remaining_prefill_tokens for seq in group)


def _split(prompts: list[Sequence], budget: int) -> list[PrefillChunk]:
    """Chunks of one owner's prompts: even parts; longer prompts get what short ones leave."""
    prompts = sorted(prompts, key=lambda seq: seq.num_remaining_prefill_tokens)
    chunks = []
    for num_before, seq in enumerate(prompts):
        share = budget // (len(prompts) - num_before)
        num_tokens = min(share, seq.num_tokens_to_save_point)
        if num_tokens == 0:  # more prompts than tokens in the budget: the shortest go first
            num_tokens = min(1, budget)
        if num_tokens:
            start = seq.num_computed_tokens
            chunks.append(PrefillChunk(seq, start, start + num_tokens))
        budget -= num_tokens
    return chunks
