"""A response: what was asked, how far it is, and its JSON. It knows no HTTP and no service.

The same value serves a response that is being written and one that is read from the library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from falcon_mamba_app.api.responses.items import output_item

Json = dict[str, Any]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
OVER = frozenset({"completed", "incomplete", "failed", "cancelled"})
TEXT = {"type": "text"}
CAN_GO_ON = frozenset({"completed", "incomplete", "cancelled"})


@dataclass(slots=True)
class Piece:
    """A piece of the text as it was streamed, with its tokens' log-probabilities if asked for."""

    text: str
    logprobs: list[Json] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Record:
    """One response. `asked` are the fields of the request that the answer repeats."""

    id: str
    item_id: str
    model: str
    asked: Json
    created_s: float
    conversation_id: str | None = None  # in the library; None for one that is not stored
    previous_id: str | None = None
    input_ids: list[str] = field(default_factory=list)
    status: Status = "queued"
    pieces: list[Piece] = field(default_factory=list)
    usage: Json | None = None
    error: Json | None = None
    reason: str | None = None  # why it is incomplete
    completed_s: float | None = None
    packed_ids: bytes | None = None  # of all that was read and written up to its end

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def is_background(self) -> bool:
        return bool(self.asked.get("background"))

    @property
    def has_item(self) -> bool:
        """Whether its message has begun: with its first word, or with its regular end."""
        return bool(self.pieces) or self.status in ("completed", "incomplete")

    def item(self) -> Json:
        """Its message as it is now."""
        status = "in_progress"
        if self.is_over:
            status = "completed" if self.status == "completed" else "incomplete"
        logprobs = [token for piece in self.pieces for token in piece.logprobs]
        return output_item(self.item_id, self.text, status=status, logprobs=logprobs)

    def to_json(self, *, status: Status | None = None) -> Json:
        """OpenAI's response object; with a `status`, as it was when it had that one."""
        is_now = status is None
        asked = {name: self.asked.get(name) for name in ECHOED}
        answer: Json = {
            "id": self.id,
            "object": "response",
            "created_at": int(self.created_s),
            "status": self.status if is_now else status,
            "completed_at": int(self.completed_s) if is_now and self.completed_s else None,
            "error": self.error if is_now else None,
            "incomplete_details": {"reason": self.reason} if is_now and self.reason else None,
            "model": self.model,
            "output": [self.item()] if is_now and self.is_over and self.has_item else [],
            "previous_response_id": self.previous_id,
            "usage": self.usage if is_now else None,
            **asked,
            "background": self.is_background,
            "metadata": self.asked.get("metadata") or {},
            "max_tool_calls": None,
            "parallel_tool_calls": True,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "text": {"format": self.asked.get("format") or TEXT, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": self.asked.get("top_logprobs") or 0,
            "truncation": self.asked.get("truncation") or "disabled",
        }
        if self.asked.get("conversation"):
            answer["conversation"] = {"id": self.asked["conversation"]}
        return answer

    def kept(self) -> Json:
        """What the library keeps beside the reply's text and ids."""
        return {
            "response": {
                "item_id": self.item_id,
                "asked": self.asked,
                "status": self.status,
                "created_s": self.created_s,
                "previous_id": self.previous_id,
                "input_ids": self.input_ids,
                "lengths": [len(piece.text) for piece in self.pieces],
                "logprobs": {i: p.logprobs for i, p in enumerate(self.pieces) if p.logprobs},
                "usage": self.usage,
                "error": self.error,
                "reason": self.reason,
                "completed_s": self.completed_s,
            }
        }


ECHOED = (
    "instructions",
    "max_output_tokens",
    "prompt_cache_key",
    "safety_identifier",
    "store",
    "temperature",
    "top_p",
    "user",
)


def pieces_of(text: str, kept: Json) -> list[Piece]:
    """The pieces as they were streamed; one, where their lengths do not add up to the text."""
    lengths: list[int] = kept.get("lengths") or []
    if sum(lengths) != len(text):
        lengths = [len(text)] if text else []
    logprobs = kept.get("logprobs") or {}
    pieces, at = [], 0
    for place, length in enumerate(lengths):
        pieces.append(Piece(text[at : at + length], logprobs.get(str(place), [])))
        at += length
    return pieces
