"""Converts the answer of an OpenAI-compatible server to the events of one reply.

It gets a stream event by event, or a whole answer at once. If the server does not count tokens
during the stream, each piece of text counts as one until its final usage corrects the sum.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
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
from falcon_mamba_app.service.remote import shapes
from falcon_mamba_app.service.remote.event_stream import DONE, Comment, Event
from falcon_mamba_app.service.remote.wire import error_from_body

MID_STREAM_STATUS = 502


class RemoteReply:
    """One reply being received.

    It ends at [DONE]. If the server sends none, it ends with the connection, provided that a finish
    reason or text came before.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._is_accepted = False
        self._prompt_tokens: int | None = None
        self._reused_tokens: int | None = None
        self._completion_tokens = 0
        self._num_characters = 0
        self._characters = shapes.WholeCharacters()
        self._reason: FinishReason | None = None
        self.is_complete = False

    @property
    def has_reason(self) -> bool:
        """Whether the server has sent its finish reason; after it only figures may come."""
        return self._reason is not None

    def read(self, received: Event | Comment) -> Iterator[GenerationEvent]:
        """The events in a part of the stream. Raises the error that the server reports."""
        if isinstance(received, Comment):
            yield from self._read_comment(received.text)
        elif received.value == DONE:
            self.is_complete = True
        elif shapes.error_in(received.value, event_name=received.name):
            raise error_from_body(_status_in(received.value), received.value)
        else:
            yield from self._read_chunk(received.value)

    def read_scored(self, answer: Any) -> Iterator[GenerationEvent]:
        """The events of a scored prompt and of its short reply, from a whole answer."""
        self._read_usage(answer.get("usage"))
        self._is_accepted = True
        choice = answer["choices"][0]
        yield Accepted(self._prompt_tokens, self._reused_tokens, self._prompt_ids(answer, choice))
        tokens = shapes.completion_tokens(choice["logprobs"])
        num_prompt = len(tokens) - self._completion_tokens
        wanted = self._request.score_prompt or 0
        yield PromptScored(tuple(_with_top(t, wanted) for t in tokens[:num_prompt]))
        if self._completion_tokens:
            self._first_s = self._last_s = time.monotonic()
            # The answer's text begins with the prompt, whose length in characters the offset tells.
            start = choice["logprobs"]["text_offset"][num_prompt]
            text = choice["text"][start:]
            logprobs = self._logprobs_asked_for(tokens[num_prompt:], text)
            yield TextDelta(text, self._completion_tokens, logprobs, self._ids(choice))
        self._reason = shapes.reason_of(choice) or "stop"
        self.is_complete = True

    def finish(self) -> Iterator[GenerationEvent]:
        """The last events, and the end. Raises BackendError if no reply has come."""
        has_text = self._first_s is not None
        if not (self._is_accepted and (self.is_complete or self.has_reason or has_text)):
            raise BackendError("the server behind --backend-url ended in the middle of a reply")
        if rest := self._characters.flush():
            yield TextDelta(rest, self._completion_tokens)
        decode_s = None
        if self._first_s is not None and self._last_s is not None:
            decode_s = self._last_s - self._first_s
        yield Finished(
            reason=self._reason or "stop",
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self._reused_tokens,
            completion_tokens=self._completion_tokens,
            ttft_s=None if self._first_s is None else self._first_s - self._started_s,
            decode_s=decode_s,
        )

    def _read_comment(self, text: str) -> Iterator[GenerationEvent]:
        """The events in a comment: a copy of this app reports its queue and its reading there."""
        if match := re.fullmatch(r"waiting (\d{1,9})", text):
            if not self._is_accepted:
                yield Waiting(int(match[1]))
        elif self._request.tells_ids:
            return  # the first chunk tells the prompt's ids, which are told when it is accepted
        elif match := re.fullmatch(r"prefill (\d{1,12})/(\d{1,12})", text):
            num_tokens, self._prompt_tokens = int(match[1]), int(match[2])
            yield from self._accept()
            yield PrefillProgress(num_tokens, self._prompt_tokens)

    def _read_chunk(self, chunk: Any) -> Iterator[GenerationEvent]:
        if not isinstance(chunk, dict):
            return
        choice = shapes.first_choice(chunk)
        text, tokens = (shapes.text_of(choice), shapes.tokens_of(choice)) if choice else ("", ())
        text = self._characters.feed(text)
        ids = self._ids(choice)
        if text or tokens or ids:
            self._completion_tokens += len(tokens) or len(ids) or 1
        self._read_usage(chunk.get("usage"))
        if choice is not None:
            yield from self._accept(self._prompt_ids(chunk, choice))
        if text or tokens or ids:
            self._last_s = time.monotonic()
            self._first_s = self._first_s or self._last_s
            logprobs = self._logprobs_asked_for(tokens, text)
            yield TextDelta(text, self._completion_tokens, logprobs, ids)
        if choice is not None:
            self._reason = self._reason or shapes.reason_of(choice)

    def _accept(self, prompt_ids: tuple[int, ...] = ()) -> Iterator[GenerationEvent]:
        if not self._is_accepted:
            self._is_accepted = True
            yield Accepted(self._prompt_tokens, self._reused_tokens, prompt_ids)

    def _prompt_ids(self, answer: dict[str, Any], choice: dict[str, Any]) -> tuple[int, ...]:
        """The prompt's ids, which stand in the choice, or beside it in a chat."""
        told = choice.get("prompt_token_ids") or answer.get("prompt_token_ids")
        return shapes.ids_in(told) if self._request.tells_ids else ()

    def _ids(self, choice: dict[str, Any] | None) -> tuple[int, ...]:
        if choice is None or not self._request.tells_ids:
            return ()
        return shapes.ids_in(choice.get("token_ids"))

    def _read_usage(self, usage: Any) -> None:
        """Store the counts that the usage holds; the others stay unchanged."""
        if not isinstance(usage, dict):
            return
        told = shapes.count_of(usage.get("prompt_tokens"))
        self._prompt_tokens = self._prompt_tokens if told is None else told
        # 0 beside text is a server that does not count.
        told = shapes.count_of(usage.get("completion_tokens"))
        self._completion_tokens = told or self._completion_tokens
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self._reused_tokens = shapes.count_of(details.get("cached_tokens"))

    def _logprobs_asked_for(
        self, tokens: tuple[TokenLogprob, ...], text: str
    ) -> tuple[TokenLogprob, ...]:
        """The tokens of a piece of text that comes next, each with its place in the reply."""
        start, self._num_characters = self._num_characters, self._num_characters + len(text)
        wanted = self._request.sampling.logprobs
        if wanted is None:
            return ()
        places = shapes.places_in(text, tokens)
        return tuple(
            replace(_with_top(token, wanted), offset=start + place)
            for token, place in zip(tokens, places, strict=True)
        )


def _status_in(error: Any) -> int:
    """The HTTP status inside an error; some servers send it in mid-stream."""
    told = error.get("error") if isinstance(error, dict) else None
    code = told.get("code") if isinstance(told, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else MID_STREAM_STATUS


def _with_top(token: TokenLogprob, count: int) -> TokenLogprob:
    """`token` with at most `count` alternatives."""
    return replace(token, top=token.top[:count])
