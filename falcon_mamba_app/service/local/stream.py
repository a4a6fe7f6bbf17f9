"""Converts the engine's events of one request to the protocol's events.

Here token ids become text, and a stop string ends the reply. It runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import replace

from falcon_mamba_app.engine.events import (
    Admitted,
    Ended,
    EngineEvent,
    Failed,
    Prefilled,
    Queued,
    Sampled,
)
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import (
    Accepted,
    Continuation,
    Conversation,
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
from falcon_mamba_app.text.detokenizer import Detokenizer
from falcon_mamba_app.text.vocabulary import Vocabulary

# The ids of a reply as a later turn will have them: of its ids, its text and its stop ids.
ReplyAsShown = Callable[[Sequence[int], str, Collection[int]], Sequence[int]]


class Stream:
    """The reply to one request as it grows."""

    def __init__(
        self,
        seq_id: int,
        request: GenerationRequest,
        prompt_ids: Sequence[int],
        *,
        vocabulary: Vocabulary,
        started_s: float,
        end_of_turn_text: str | None = None,
        reply_as_shown: ReplyAsShown | None = None,
        end_ids: Collection[int] = (),
    ) -> None:
        """`end_of_turn_text` ends a reply in a conversation if no single token does; `end_ids` are
        those that do, which are never shown. `reply_as_shown` makes the ids that a Continuation
        begins with.
        """
        self.seq_id, self.request, self.prompt_ids = seq_id, request, prompt_ids
        self.reply_ids: list[int] = []
        self.has_ended = False  # in the engine
        self.is_forgotten = False  # nothing of this reply is kept for the session
        self._vocabulary, self._reply_as_shown = vocabulary, reply_as_shown
        self._shown: list[str] = []
        self._detokenizer = Detokenizer(
            vocabulary,
            stop=(*request.sampling.stop, *_ends(request, end_of_turn_text)),
            prompt_ids=prompt_ids,
            skip_special_tokens=request.sampling.skip_special_tokens,
        )
        self._end_ids = () if request.sampling.ignore_eos else end_ids
        self._inbox: asyncio.Queue[tuple[EngineEvent, float] | FalconMambaError] = asyncio.Queue()
        self._num_reused_tokens = 0
        self._prompt_scores: list[ScoredToken] = []
        self.started_s = started_s
        self._first_token_s: float | None = None
        self._last_token_s: float | None = None

    def put(self, event: EngineEvent, now_s: float) -> None:
        """Add an event that happened to the sequence at `now_s`."""
        self.has_ended = self.has_ended or isinstance(event, Ended | Failed)
        self._inbox.put_nowait((event, now_s))

    def fail(self, error: FalconMambaError) -> None:
        """End the stream with an error."""
        self._inbox.put_nowait(error)

    async def events(self) -> AsyncGenerator[GenerationEvent, None]:
        """The protocol's events up to Finished. Raises what `fail` was given."""
        while True:
            item = await self._inbox.get()
            if isinstance(item, FalconMambaError):
                raise item
            for event in self._translate(*item):
                yield event
                if isinstance(event, Finished):
                    return

    def _translate(self, event: EngineEvent, now_s: float) -> list[GenerationEvent]:
        match event:
            case Queued(position=position):
                return [Waiting(position)]
            case Admitted(num_reused_tokens=num_reused):
                self._num_reused_tokens = num_reused
                told = tuple(self.prompt_ids) if self.request.tells_ids else ()
                accepted = Accepted(len(self.prompt_ids), num_reused, told)
                return [accepted, *self._scored_if_complete()]
            case Prefilled(num_computed_tokens=num_computed, scores=scores):
                self._prompt_scores += scores
                progress = PrefillProgress(num_computed, len(self.prompt_ids))
                return [progress, *self._scored_if_complete()]
            case Sampled():
                return self._text(event, now_s)
            case Ended(reason=reason):
                return self._finish(reason)
            case Failed(error=error):
                raise error

    def _scored_if_complete(self) -> list[GenerationEvent]:
        num_alternatives = self.request.score_prompt
        if num_alternatives is None or len(self._prompt_scores) < len(self.prompt_ids) - 1:
            return []
        first = self._logprob(self.prompt_ids[0], None)
        rest = (self._scored(score) for score in self._prompt_scores)
        return [PromptScored((first, *rest))]

    def _text(self, event: Sampled, now_s: float) -> list[GenerationEvent]:
        self._first_token_s = self._first_token_s or now_s
        self._last_token_s = now_s
        token = event.token
        self.reply_ids.append(token.token_id)
        offset = self._detokenizer.num_characters
        is_stop = token.token_id in self.request.sampling.stop_token_ids
        is_end = is_stop or token.token_id in self._end_ids
        text = "" if is_end else self._detokenizer.feed(token.token_id)
        logprobs = () if token.score is None else (self._scored(token.score, offset=offset),)
        told = (token.token_id,) if self.request.tells_ids else ()
        events: list[GenerationEvent] = []
        self._shown.append(text)
        if text or logprobs or told:
            events.append(TextDelta(text, len(self.reply_ids), logprobs, told))
        is_over = is_stop or self._detokenizer.is_stopped
        return events + (self._finish("stop") if is_over else [])

    def _finish(self, reason: FinishReason) -> list[GenerationEvent]:
        rest = self._detokenizer.flush()
        self._shown.append(rest)
        events: list[GenerationEvent] = [TextDelta(rest, len(self.reply_ids))] if rest else []
        # The last characters may have completed a stop string that was undecided until now.
        reason = "stop" if self._detokenizer.is_stopped else reason
        return [*events, self._finished(reason)]

    def _finished(self, reason: FinishReason) -> Finished:
        return Finished(
            reason=reason,
            prompt_tokens=len(self.prompt_ids),
            reused_tokens=self._num_reused_tokens,
            completion_tokens=len(self.reply_ids),
            ttft_s=_between(self.started_s, self._first_token_s),
            decode_s=_between(self._first_token_s, self._last_token_s),
            packed_ids=self._packed_ids(),
        )

    def _packed_ids(self) -> bytes | None:
        if self.request.session_id is None or self._reply_as_shown is None:
            return None
        stops = self.request.sampling.stop_token_ids
        reply_ids = self._reply_as_shown(self.reply_ids, "".join(self._shown), stops)
        return pack_token_ids(self.prompt_ids) + pack_token_ids(reply_ids)

    def _scored(self, score: ScoredToken, *, offset: int | None = None) -> TokenLogprob:
        top = [self._logprob(token_id, logprob) for token_id, logprob in score.top]
        own = self._logprob(score.token_id, score.logprob)
        return replace(own, top=tuple(top), offset=offset, rank=score.rank)

    def _logprob(self, token_id: int, logprob: float | None) -> TokenLogprob:
        text, data = self._vocabulary.token_text(token_id), self._vocabulary.token_bytes(token_id)
        return TokenLogprob(token_id, text, data, logprob)


def _ends(request: GenerationRequest, end_of_turn_text: str | None) -> list[str]:
    is_turn = isinstance(request.prompt, Conversation | Continuation)
    if end_of_turn_text is None or not is_turn or request.sampling.ignore_eos:
        return []
    if request.form is not None:  # it has its own end, and may hold this text
        return []
    return [end_of_turn_text]


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s
