"""Turns the answer of an OpenAI-compatible server into the events of one reply.

Fed line by line with an event stream, or once with a whole answer. Where the server does not count
tokens as it goes, each piece of text counts as one until its final usage corrects the sum.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from falcon_mamba_app.errors import BackendError
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    PrefillProgress,
    PromptScored,
    TextDelta,
    TokenLogprob,
    Waiting,
)
from falcon_mamba_app.service.remote.wire import error_from_body

BYTES_NAME = "bytes:"  # how OpenAI names a token whose bytes are no text
MID_STREAM_STATUS = 502


class RemoteReply:
    """One reply being received."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._is_accepted = False
        self._prompt_tokens: int | None = None
        self._reused_tokens: int | None = None
        self._completion_tokens = 0
        self._reason: FinishReason | None = None
        self.is_complete = False

    def read_line(self, line: str) -> Iterator[GenerationEvent]:
        """The events that a line of the stream tells. Raises what the server says went wrong."""
        if line.startswith(": "):
            yield from self._read_comment(line)
        if not line.startswith("data:"):
            return
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self.is_complete = True
            return
        chunk = json.loads(data)
        if "error" in chunk or chunk.get("object") == "error":
            raise error_from_body(MID_STREAM_STATUS, chunk)
        yield from self._read_chunk(chunk)

    def read_whole(self, answer: Any) -> Iterator[GenerationEvent]:
        """The events of a scored prompt and the little that may follow it."""
        self._read_usage(answer.get("usage"))
        yield Accepted(self._prompt_tokens, self._reused_tokens)
        choice = answer["choices"][0]
        tokens = _completion_tokens(choice["logprobs"])
        num_prompt = len(tokens) - self._completion_tokens
        wanted = self._request.score_prompt or 0
        yield PromptScored(tuple(_with_top(t, wanted) for t in tokens[:num_prompt]))
        if self._completion_tokens:
            self._first_s = self._last_s = time.monotonic()
            # The answer's text begins with the prompt, whose length in characters the offset tells.
            start = choice["logprobs"]["text_offset"][num_prompt]
            logprobs = self._logprobs_asked_for(tokens[num_prompt:])
            yield TextDelta(choice["text"][start:], self._completion_tokens, logprobs)
        self._read_reason(choice["finish_reason"])
        self.is_complete = True

    def finished(self) -> Finished:
        """The last event. Raises BackendError if the server stopped in mid-reply."""
        if self._reason is None or not self.is_complete:
            raise BackendError("the server behind --backend-url ended in the middle of a reply")
        decode_s = None
        if self._first_s is not None and self._last_s is not None:
            decode_s = self._last_s - self._first_s
        return Finished(
            reason=self._reason,
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self._reused_tokens,
            completion_tokens=self._completion_tokens,
            ttft_s=None if self._first_s is None else self._first_s - self._started_s,
            decode_s=decode_s,
        )

    def _read_comment(self, line: str) -> Iterator[GenerationEvent]:
        """A copy of this app tells its waiting line and its reading in comments."""
        if match := re.fullmatch(r": waiting (\d{1,9})", line):
            yield Waiting(int(match[1]))
        elif (match := re.fullmatch(r": prefill (\d{1,12})/(\d{1,12})", line)) and (
            self._is_accepted
        ):
            yield PrefillProgress(int(match[1]), int(match[2]))

    def _read_chunk(self, chunk: Any) -> Iterator[GenerationEvent]:
        choices = chunk.get("choices") or []
        text, tokens = _piece(choices[0]) if choices else ("", ())
        if text or tokens:
            self._completion_tokens += len(tokens) or 1
        self._read_usage(chunk.get("usage"))
        if not self._is_accepted:
            self._is_accepted = True
            yield Accepted(self._prompt_tokens, self._reused_tokens)
        if text or tokens:
            self._last_s = time.monotonic()
            self._first_s = self._first_s or self._last_s
            yield TextDelta(text, self._completion_tokens, self._logprobs_asked_for(tokens))
        if choices:
            self._read_reason(choices[0].get("finish_reason"))

    def _read_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        self._prompt_tokens = _count(usage.get("prompt_tokens"))
        self._completion_tokens = _count(usage.get("completion_tokens")) or 0
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self._reused_tokens = _count(details.get("cached_tokens"))

    def _read_reason(self, reason: Any) -> None:
        if reason == "stop":
            self._reason = "stop"
        elif reason == "length":
            self._reason = "length"
        elif reason is not None:
            raise BackendError(f"the server behind --backend-url ended the reply with {reason!r}")

    def _logprobs_asked_for(self, tokens: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        wanted = self._request.sampling.logprobs
        return () if wanted is None else tuple(_with_top(token, wanted) for token in tokens)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _piece(choice: Any) -> tuple[str, tuple[TokenLogprob, ...]]:
    """The text of a chunk's choice and its tokens, in the shape of either endpoint."""
    logprobs = choice.get("logprobs")
    if "delta" in choice:
        entries = (logprobs or {}).get("content") or []
        return choice["delta"].get("content") or "", tuple(_chat_token(entry) for entry in entries)
    return choice["text"], _completion_tokens(logprobs)


def _chat_token(entry: Any) -> TokenLogprob:
    data = entry.get("bytes")
    return TokenLogprob(
        None,
        entry["token"],
        entry["token"].encode(errors="replace") if data is None else bytes(data),
        entry["logprob"],
        tuple(_chat_token(other) for other in entry.get("top_logprobs") or ()),
    )


def _completion_tokens(logprobs: Any) -> tuple[TokenLogprob, ...]:
    if not logprobs:
        return ()
    columns = ("tokens", "token_logprobs", "top_logprobs")
    return tuple(
        _named_token(name, logprob, top or {})
        for name, logprob, top in zip(*(logprobs[column] for column in columns), strict=True)
    )


def _named_token(name: str, logprob: float | None, top: dict[str, float]) -> TokenLogprob:
    """A token of the legacy shape, its alternatives from the likeliest down."""
    likeliest_first = sorted(top.items(), key=lambda item: -item[1])
    alternatives = tuple(_named_token(other, value, {}) for other, value in likeliest_first)
    data = name.encode(errors="replace")
    if name.startswith(BYTES_NAME + "\\x"):
        data = bytes.fromhex(name.removeprefix(BYTES_NAME).replace("\\x", ""))
        name = data.decode(errors="replace")
    return TokenLogprob(None, name, data, logprob, alternatives)


def _with_top(token: TokenLogprob, count: int) -> TokenLogprob:
    """`token` with at most `count` alternatives."""
    return TokenLogprob(
        token.token_id, token.token, token.token_bytes, token.logprob, token.top[:count]
    )
