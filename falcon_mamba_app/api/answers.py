"""OpenAI's shapes for replies: what an event looks like as a chunk, and chunks joined to an answer.

A streamed reply is its chunks; a reply sent whole is the same chunks joined, so both always agree.
Knows events and JSON values, no HTTP.
"""

from __future__ import annotations

from typing import Any, Protocol

from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.protocol import (
    Accepted,
    Finished,
    GenerationEvent,
    PromptScored,
    Text,
    TextDelta,
    TokenLogprob,
)

Json = dict[str, Any]


class AnswerFormat(Protocol):
    """How one endpoint shapes its answers. One object serves one request."""

    id_prefix: str
    answer_object: str
    chunk_object: str

    def chunk(self, reply: PlannedReply, event: GenerationEvent) -> Json | None:
        """The choice that tells of the event in a stream, or None if nothing is to be told."""
        ...

    def join(self, chunks: list[Json]) -> Json:
        """One reply's choice, from all of its chunks."""
        ...


class ChatFormat:
    """/v1/chat/completions."""

    id_prefix = "chatcmpl-"
    answer_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def chunk(self, reply: PlannedReply, event: GenerationEvent) -> Json | None:
        if isinstance(event, TextDelta):
            return self._choice(reply, {"content": event.text}, logprobs=event.logprobs)
        if isinstance(event, Accepted):
            return self._choice(reply, {"role": "assistant", "content": ""})
        if isinstance(event, Finished):
            return self._choice(reply, {}, finish_reason=event.reason)
        return None

    def _choice(
        self,
        reply: PlannedReply,
        delta: Json,
        *,
        logprobs: tuple[TokenLogprob, ...] = (),
        finish_reason: str | None = None,
    ) -> Json:
        content = [_chat_logprob(token, with_top=True) for token in logprobs]
        return {
            "index": reply.index,
            "delta": delta,
            "logprobs": {"content": content, "refusal": None} if content else None,
            "finish_reason": finish_reason,
        }

    def join(self, chunks: list[Json]) -> Json:
        content = [token for c in chunks if c["logprobs"] for token in c["logprobs"]["content"]]
        text = "".join(chunk["delta"].get("content", "") for chunk in chunks)
        return {
            "index": chunks[0]["index"],
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": {"content": content, "refusal": None} if content else None,
            "finish_reason": chunks[-1]["finish_reason"],
        }


def _chat_logprob(token: TokenLogprob, *, with_top: bool) -> Json:
    shape: Json = {"token": token.token, "logprob": token.logprob, "bytes": list(token.token_bytes)}
    if with_top:
        shape["top_logprobs"] = [_chat_logprob(other, with_top=False) for other in token.top]
    return shape


class CompletionFormat:
    """/v1/completions. With `echo` a reply begins with its prompt.

    `text_offset` counts characters from the start of the choice's text.
    """

    id_prefix = "cmpl-"
    answer_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, *, echo: bool, with_logprobs: bool) -> None:
        self._echo = echo
        self._with_logprobs = with_logprobs
        self._scored_prompts: dict[int, tuple[TokenLogprob, ...]] = {}
        self._offsets: dict[int, int] = {}

    def chunk(self, reply: PlannedReply, event: GenerationEvent) -> Json | None:
        if isinstance(event, TextDelta):
            return self._choice(reply, event.text, logprobs=event.logprobs)
        if isinstance(event, Finished):
            return self._choice(reply, "", finish_reason=event.reason)
        if isinstance(event, PromptScored):
            self._scored_prompts[reply.prompt_index] = event.tokens
            return self._echoed_prompt(reply)
        if isinstance(event, Accepted):
            is_told_now = self._echo and reply.request.score_prompt is None
            return self._echoed_prompt(reply) if is_told_now else self._choice(reply, "")
        return None

    def _echoed_prompt(self, reply: PlannedReply) -> Json:
        """The prompt as it was sent; token ids as the text of their bytes."""
        tokens = self._scored_prompts.get(reply.prompt_index, ())
        prompt = reply.request.prompt
        if isinstance(prompt, Text):
            return self._choice(reply, prompt, logprobs=tokens)
        text = b"".join(token.token_bytes for token in tokens).decode(errors="replace")
        return self._choice(reply, text, logprobs=tokens)

    def _choice(
        self,
        reply: PlannedReply,
        text: str,
        *,
        logprobs: tuple[TokenLogprob, ...] = (),
        finish_reason: str | None = None,
    ) -> Json:
        has_logprobs = self._with_logprobs and bool(logprobs)
        return {
            "index": reply.index,
            "text": text,
            "logprobs": self._completion_logprobs(reply.index, logprobs) if has_logprobs else None,
            "finish_reason": finish_reason,
        }

    def _completion_logprobs(self, index: int, tokens: tuple[TokenLogprob, ...]) -> Json:
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + _num_characters(token.token_bytes)
        return {
            "tokens": [_legacy_name(token) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_legacy_top(token) for token in tokens],
            "text_offset": offsets,
        }

    def join(self, chunks: list[Json]) -> Json:
        parts = [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]]
        names = parts[0].keys() if parts else ()
        joined = {name: [item for part in parts for item in part[name]] for name in names}
        return {
            "index": chunks[0]["index"],
            "text": "".join(chunk["text"] for chunk in chunks),
            "logprobs": joined or None,
            "finish_reason": chunks[-1]["finish_reason"],
        }


def _num_characters(data: bytes) -> int:
    """Characters that begin in `data`, which may start or end inside one."""
    return sum(byte & 0xC0 != 0x80 for byte in data)


def _legacy_name(token: TokenLogprob) -> str:
    """The token's text, or OpenAI's "bytes:\\xe2\\x80" where its bytes alone are no text."""
    try:
        token.token_bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.token_bytes)
    return token.token


def _legacy_top(token: TokenLogprob) -> dict[str, float | None] | None:
    """Alternatives by name, the token itself among them; None for the first of a prompt."""
    if token.logprob is None:
        return None
    top: dict[str, float | None] = {_legacy_name(token): token.logprob}
    for other in token.top:
        top.setdefault(_legacy_name(other), other.logprob)
    return top
