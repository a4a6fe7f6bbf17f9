"""Counts tokens as OpenAI's `usage` does: each prompt once, the replies together."""

from __future__ import annotations

from typing import Any

from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.protocol import Accepted, Finished, GenerationEvent, TextDelta


class UsageMeter:
    """Fed with the events of all replies of one request."""

    def __init__(self) -> None:
        self._prompt_tokens: dict[int, int | None] = {}
        self._cached_tokens: dict[int, int | None] = {}
        self._completion_tokens: dict[int, int] = {}

    def add(self, reply: PlannedReply, event: GenerationEvent) -> None:
        """Followers restore what their leader read, so only leaders count their prompt."""
        if isinstance(event, TextDelta | Finished):
            self._completion_tokens[reply.index] = event.completion_tokens
        if isinstance(event, Accepted | Finished) and reply.follows is None:
            self._prompt_tokens[reply.prompt_index] = event.prompt_tokens
            self._cached_tokens[reply.prompt_index] = event.reused_tokens

    def usage(self) -> dict[str, Any] | None:
        """OpenAI's usage object, or None where a backend did not tell its counts."""
        prompt_tokens = _total(self._prompt_tokens)
        if prompt_tokens is None:
            return None
        completion_tokens = sum(self._completion_tokens.values())
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        cached_tokens = _total(self._cached_tokens)
        if cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
        return usage


def _total(counts: dict[int, int | None]) -> int | None:
    """The sum, or None if one of the counts is not known."""
    known = [count for count in counts.values() if count is not None]
    return sum(known) if len(known) == len(counts) else None
