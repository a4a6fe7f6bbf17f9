"""Drafts of how a reply goes on: as it went on before, after the same tokens.

A draft costs a fraction of a step, and each accepted token saves a whole one. Refused ones change
no reply, but take time. Of all places that the newest token stands in, the one with the most alike
before it is taken; how well it predicts depends on how many those are. So drafts are judged by that
number: where they fail they pause, each time for longer, and others go on. No tensors here.
Prompt lookup decoding: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from falcon_mamba_app.engine.sequence import Sequence

MAX_INDEXED = 8_192  # of the newest tokens; indexing so many takes 4 ms, once
MAX_PLACES = 16  # of one token, the newest ones
MAX_ALIKE = 4  # tokens before a place that are compared
MIN_ACCEPTED = 0.5  # tokens of a draft that pay for it: with four tokens a pass takes 1.4 steps
MEMORY = 0.6  # the weight of earlier drafts in the average
FIRST_PAUSE, LONGEST_PAUSE = 16, 512  # tokens


@dataclass(slots=True)
class _Trust:
    """How good drafts were, of those with as many tokens alike."""

    num_accepted: float = 2 * MIN_ACCEPTED  # of a draft, in the average
    pause: int = FIRST_PAUSE
    resumes_at: int = 0  # tokens known

    def learn(self, num_accepted: int, num_known: int) -> None:
        self.num_accepted = MEMORY * self.num_accepted + (1 - MEMORY) * num_accepted
        if num_accepted >= MIN_ACCEPTED:
            self.pause = FIRST_PAUSE
        if self.num_accepted < MIN_ACCEPTED:
            self.resumes_at = num_known + self.pause
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
            self.num_accepted = MIN_ACCEPTED  # one more failure pauses again


@dataclass(slots=True)
class _Past:
    """One sequence: its newest tokens, and for each of them the places that followed it."""

    first: int  # place of the first of `tokens` in the sequence
    tokens: list[int] = field(default_factory=list)
    places_after: dict[int, deque[int]] = field(default_factory=dict)
    trust: list[_Trust] = field(default_factory=lambda: [_Trust() for _ in range(MAX_ALIKE)])
    num_alike: int = 0  # of the last draft

    def read(self, seq: Sequence, num_known: int) -> None:
        """Index the tokens that are new; the newest one is followed by nothing yet."""
        for token in seq.tokens(self.first + len(self.tokens), num_known):
            if self.tokens:
                places = self.places_after.setdefault(self.tokens[-1], deque(maxlen=MAX_PLACES))
                places.append(len(self.tokens))
            self.tokens.append(token)

    def most_alike(self) -> tuple[int, int]:
        """The place before which most tokens are the newest ones, and their number; of several
        such places the newest.
        """
        tokens, best, most = self.tokens, 0, 0
        for place in reversed(self.places_after.get(tokens[-1], ())):
            alike = 1
            while alike < min(MAX_ALIKE, place) and tokens[place - 1 - alike] == tokens[-1 - alike]:
                alike += 1
            if alike > most:
                best, most = place, alike
        return best, most


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
        if room <= 0:
            return []
        past.read(seq, num_known)
        place, past.num_alike = past.most_alike()
        if not past.num_alike or num_known < past.trust[past.num_alike - 1].resumes_at:
            return []
        return past.tokens[place : place + min(self._max_tokens, room)]

    def learn(self, seq: Sequence, num_accepted: int) -> None:
        """How many tokens of the last draft were accepted."""
        past = self._pasts[seq.seq_id]
        num_known = len(seq.prompt_token_ids) + len(seq.output_token_ids)
        past.trust[past.num_alike - 1].learn(num_accepted, num_known)

    def drop(self, seq: Sequence) -> None:
        self._pasts.pop(seq.seq_id, None)
