"""What vLLM tells beside a reply's text: token ids, and log-probabilities of the prompt.

One object serves one request. It knows events and JSON values, no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.protocol import Accepted, GenerationEvent, PromptScored, TokenLogprob

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """`prompt_logprobs` is the number of alternatives beside each token of the prompt. With
    `names_by_id` tokens beside log-probabilities are named by their ids.
    """

    token_ids: bool = False
    prompt_logprobs: int | None = None
    names_by_id: bool = False


class Telling:
    """Collects what was asked for from the events of all replies."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._prompt_ids: dict[int, list[int]] = {}
        self._scored: dict[int, list[Json | None]] = {}

    @property
    def names_by_id(self) -> bool:
        return self._asked.names_by_id

    def note(self, reply: PlannedReply, event: GenerationEvent) -> None:
        """Keep what the event tells of a prompt."""
        if isinstance(event, Accepted) and self._asked.token_ids:
            self._prompt_ids[reply.prompt_index] = list(event.prompt_ids)
        if isinstance(event, PromptScored) and self._asked.prompt_logprobs is not None:
            entries = [_by_id(token, self._asked.prompt_logprobs) for token in event.tokens]
            self._scored[reply.prompt_index] = entries

    def prompt_ids(self, prompt_index: int = 0) -> Json:
        """The field with the ids of a prompt; none if they were not asked for."""
        asked = self._asked.token_ids
        return {"prompt_token_ids": self._prompt_ids.get(prompt_index)} if asked else {}

    def prompt_logprobs(self, prompt_index: int = 0) -> Json:
        """The field with a prompt's log-probabilities; null if they were not asked for."""
        return {"prompt_logprobs": self._scored.get(prompt_index)}

    def reply_ids(self, token_ids: Sequence[int]) -> Json:
        """The field with ids of a reply; none if they were not asked for."""
        return {"token_ids": list(token_ids)} if self._asked.token_ids else {}


def joined_ids(chunks: list[Json]) -> Json:
    """The field with all ids of a reply, from its chunks; none if they have none."""
    parts = [chunk["token_ids"] for chunk in chunks if "token_ids" in chunk]
    return {"token_ids": [token_id for part in parts for token_id in part]} if parts else {}


def _by_id(token: TokenLogprob, num_top: int) -> Json | None:
    """The token and its likeliest alternatives by their ids; None for the first of a prompt."""
    if token.logprob is None:
        return None
    ranked = [(other, rank) for rank, other in enumerate(token.top[:num_top], start=1)]
    entries: Json = {}
    for entry, rank in ((token, token.rank), *ranked):
        told = {"logprob": entry.logprob, "rank": rank, "decoded_token": entry.token}
        entries.setdefault(str(entry.token_id), told)
    return entries
