"""The text and figures of one reply, from the service's events, and its status sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from falcon_mamba_app.metrics import ReplyMeter
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    PrefillProgress,
    TextDelta,
    Waiting,
)

Phase = Literal["starting", "waiting", "prefilling", "decoding", "finished", "stopped", "failed"]


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is known so far of one reply. None means "not known (yet)"."""

    meter: ReplyMeter
    phase: Phase = "starting"
    queue_position: int | None = None
    computed_tokens: int | None = None
    prompt_tokens: int | None = None
    reused_tokens: int | None = None
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    measured: Finished | None = None  # the service's own figures, once the reply is complete
    error: str | None = None  # a sentence for the visitor, when the phase is "failed"
    strip: str | None = None  # the picture of the state as it was looked at last
    read_from: tuple[float, int] | None = None  # when the reading began, and at which token
    seconds_to_read: float | None = None  # what is left of the reading
    read_s: float | None = None  # how long the reading took
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The whole text so far."""
        self.parts = ["".join(self.parts)]
        return self.parts[0]

    @property
    def context_tokens(self) -> int | None:
        """Tokens the model has read or written so far, this reply included."""
        if self.phase == "prefilling":
            return self.computed_tokens
        return None if self.prompt_tokens is None else self.prompt_tokens + self.completion_tokens

    @property
    def is_over(self) -> bool:
        return self.phase in ("finished", "stopped", "failed")

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token: the service's figure when it is known, else ours."""
        measured = self.measured.ttft_s if self.measured else None
        return self.meter.ttft_s if measured is None else measured

    @property
    def tokens_per_s_now(self) -> float | None:
        """Over the last second; None once the reply is over."""
        return None if self.is_over else self.meter.tokens_per_s_now

    @property
    def tokens_per_s(self) -> float | None:
        """Of the whole reply, from its first token to its last."""
        if self.measured and self.measured.decode_s and self.measured.completion_tokens > 1:
            return (self.measured.completion_tokens - 1) / self.measured.decode_s
        return self.meter.tokens_per_s

    def apply(self, event: GenerationEvent, *, now_s: float) -> None:
        """Take one event in."""
        match event:
            case Waiting():
                self.phase, self.queue_position = "waiting", event.position
            case Accepted():
                self.phase = "prefilling"
                self.prompt_tokens, self.reused_tokens = event.prompt_tokens, event.reused_tokens
                self.computed_tokens = event.reused_tokens
                self.read_from = (now_s, event.reused_tokens or 0)
            case PrefillProgress():
                self.phase, self.computed_tokens = "prefilling", event.computed_tokens
                self.seconds_to_read = self._seconds_to_read(event, now_s)
            case TextDelta():
                if self.phase != "decoding" and self.read_from is not None:
                    self.read_s = now_s - self.read_from[0]
                self.phase, self.completion_tokens = "decoding", event.completion_tokens
                self.parts.append(event.text)
                self.meter.add(event.completion_tokens, now_s=now_s)
            case Finished():
                self._finish(event)

    def _seconds_to_read(self, event: PrefillProgress, now_s: float) -> float | None:
        """At the speed so far."""
        if self.read_from is None:
            return None
        began_s, first = self.read_from
        num_read = event.computed_tokens - first
        left = event.prompt_tokens - event.computed_tokens
        return (now_s - began_s) * left / num_read if num_read > 0 else None

    def _finish(self, event: Finished) -> None:
        self.phase, self.finish_reason, self.measured = "finished", event.reason, event
        if event.prompt_tokens is not None:
            self.prompt_tokens = event.prompt_tokens
        if event.reused_tokens is not None:
            self.reused_tokens = event.reused_tokens
        self.completion_tokens = event.completion_tokens


def describe(reply: Reply) -> str:
    """The reply's status as one short sentence, for the status line."""
    match reply.phase:
        case "waiting":
            return f"Waiting in line: number {reply.queue_position}"
        case "prefilling":
            return _describe_prefill(reply)
        case "decoding":
            speed = reply.tokens_per_s_now
            return "Writing" if speed is None else f"Writing · {speed:.0f} tok/s"
        case "finished" if reply.finish_reason == "length":
            return f"Done: the limit of {reply.completion_tokens:,} new tokens was reached"
        case "finished":
            return "Done"
        case "stopped":
            return "Stopped"
        case "failed":
            return "Broken off" if reply.text else "Not answered"
        case _:
            return "Sending"


def _describe_prefill(reply: Reply) -> str:
    if not reply.prompt_tokens or reply.computed_tokens is None:
        return "Reading"
    percent = 100 * reply.computed_tokens // reply.prompt_tokens
    left = "" if reply.seconds_to_read is None else _time_left(reply.seconds_to_read)
    return f"Reading {percent} % of {reply.prompt_tokens:,} tokens{left}"


def _time_left(seconds: float) -> str:
    """As a person would say it; nothing for what is over before it is read."""
    if seconds < 2:
        return ""
    if seconds < 90:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left"
