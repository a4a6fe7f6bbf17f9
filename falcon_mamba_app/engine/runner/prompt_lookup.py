"""Drafts of how a reply goes on: as it went on before, after the same few tokens.

A draft costs a fraction of a step, and each accepted token saves a whole one. Refused ones change
no reply, but take time: a sequence whose drafts fail pauses, each time for longer. No tensors here.
Prompt lookup decoding: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from dataclasses import dataclass, field

from falcon_mamba_app.engine.sequence import Sequence

NUM_ALIKE = 3  # tokens that must have stood together before
MAX_INDEXED = 8_192  # of the newest tokens; indexing so many takes 4 ms, once
MIN_ACCEPTED = 1.0  # tokens of a draft that pay for it
MEMORY = 0.75  # the weight of earlier drafts in the average
FIRST_PAUSE, LONGEST_PAUSE = 8, 512  # tokens


@dataclass(slots=True)
class _Past:
    """One sequence: where the token after each triple stands, and how good drafts were."""

    num_indexed: int
    place_after: dict[tuple[int, ...], int] = field(default_factory=dict)
    num_accepted: float = 2 * MIN_ACCEPTED  # of a draft, in the average
    pause: int = FIRST_PAUSE
    resumes_at: int = 0  # tokens known


class PromptLookup:
    """The drafts for all sequences, of at most `max_tokens` each."""

    def __init__(self, max_tokens: int) -> None:
        assert max_tokens > 0, f"{max_tokens=}"
        self._max_tokens = max_tokens
        self._pasts: dict[int, _Past] = {}  # by seq_id

    def draft(self, seq: Sequence) -> list[int]:
        """The tokens that may follow the last known one; none where nothing suggests any."""
        room = seq.sampling.max_new_tokens - len(seq.output_token_ids) - 1
        num_known = len(seq.prompt_token_ids) + len(seq.output_token_ids)
        past = self._pasts.get(seq.seq_id)
        if past is None:
            past = self._pasts[seq.seq_id] = _Past(max(0, num_known - MAX_INDEXED))
        if room <= 0 or num_known < past.resumes_at:
            return []
        last = self._index(seq, past, num_known)
        place = past.place_after.get(last)
        past.place_after[last] = num_known
        if place is None:
            return []
        return seq.tokens(place, min(place + min(self._max_tokens, room), num_known))

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """How many tokens of the last draft were accepted."""
        past = self._pasts[seq.seq_id]
        past.num_accepted = MEMORY * past.num_accepted + (1 - MEMORY) * num_accepted
        if num_accepted >= MIN_ACCEPTED:
            past.pause = FIRST_PAUSE
        if past.num_accepted < MIN_ACCEPTED:
            num_known = len(seq.prompt_token_ids) + len(seq.output_token_ids)
            past.resumes_at = num_known + past.pause
            past.pause = min(2 * past.pause, LONGEST_PAUSE)
            past.num_accepted = MIN_ACCEPTED  # one more failure pauses again

    def drop(self, seq: Sequence) -> None:
        self._pasts.pop(seq.seq_id, None)

    def _index(self, seq: Sequence, past: _Past, num_known: int) -> tuple[int, ...]:
        """Index the places up to the last token's; returns the newest tokens, not indexed yet."""
        start = max(0, past.num_indexed - NUM_ALIKE)
        tokens = seq.tokens(start, num_known)
        for end in range(max(past.num_indexed, start + NUM_ALIKE), num_known):
            past.place_after[tuple(tokens[end - start - NUM_ALIKE : end - start])] = end
        past.num_indexed = num_known
        return tuple(tokens[-NUM_ALIKE:])
