"""OpenAI's shapes for replies: events as chunks, and chunks joined to an answer.

A streamed reply is its chunks; a whole reply is the same chunks joined, so both always agree. It
knows events and JSON values, no HTTP.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from typing import Any, Protocol

from falcon_mamba_app.api.logprobs import chat_logprob, completion_logprobs
from falcon_mamba_app.api.planning import PlannedReply
from falcon_mamba_app.api.telling import Asked, Telling, joined_ids
from falcon_mamba_app.api.tool_calls import CallReader, joined_calls
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
NOTHING = Asked()


class AnswerFormat(Protocol):
    """The shape of one endpoint's answers. One object serves one request."""

    id_prefix: str
    answer_object: str
    chunk_object: str

    def chunks(self, reply: PlannedReply, event: GenerationEvent) -> list[Json]:
        """The choices for the event in a stream; none before the first text, so that the time to
        the first chunk is the model's.
        """
        ...

    def join(self, chunks: list[Json]) -> Json:
        """One reply's choice, from all of its chunks."""
        ...

    def beside_chunk(self, choice: Json) -> Json:
        """What stands beside a chunk's choice."""
        ...

    def beside_choices(self) -> Json:
        """What stands beside all choices of a whole answer."""
        ...


class ChatFormat:
    """/v1/chat/completions."""

    id_prefix = "chatcmpl-"
    answer_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(
        self, *, reads_calls: bool = False, asked: Asked = NOTHING, begun: str = ""
    ) -> None:
        """With `reads_calls` a reply's text may be calls of functions. A reply begins with `begun`,
        words of the assistant's that it continues.
        """
        self._has_opened: set[int] = set()
        self._reads_calls, self._begun = reads_calls, begun
        self._telling = Telling(asked)
        self._readers: defaultdict[int, CallReader] = defaultdict(CallReader)

    def chunks(self, reply: PlannedReply, event: GenerationEvent) -> list[Json]:
        self._telling.note(reply, event)
        if isinstance(event, TextDelta):
            has_tokens = event.logprobs or event.token_ids
            deltas = self._deltas(reply, event.text) or ([{}] if has_tokens else [])
            choices = [self._choice(reply, delta) for delta in deltas]
            if choices:
                choices[0] = self._choice(
                    reply, deltas[0], logprobs=event.logprobs, token_ids=event.token_ids
                )
            return [*(self._opening(reply, deltas[0]) if choices else []), *choices]
        if isinstance(event, Finished):
            reader = self._readers[reply.index]
            rest = [self._choice(reply, delta) for delta in reader.flush()]
            has_called = reader.num_calls and event.reason == "stop"
            end = self._choice(
                reply, {}, finish_reason="tool_calls" if has_called else event.reason
            )
            return [*self._opening(reply, {}), *rest, end]
        return []

    def _deltas(self, reply: PlannedReply, text: str) -> list[Json]:
        if self._reads_calls:
            return self._readers[reply.index].feed(text)
        return [{"content": text}]

    def _opening(self, reply: PlannedReply, first: Json) -> list[Json]:
        if reply.index in self._has_opened:
            return []
        self._has_opened.add(reply.index)
        content = None if "tool_calls" in first else ""
        opening = [self._choice(reply, {"role": "assistant", "content": content})]
        if self._begun:
            opening.append(self._choice(reply, {"content": self._begun}))
        return opening

    def _choice(
        self,
        reply: PlannedReply,
        delta: Json,
        *,
        logprobs: tuple[TokenLogprob, ...] = (),
        token_ids: tuple[int, ...] = (),
        finish_reason: str | None = None,
    ) -> Json:
        by_id = self._telling.names_by_id
        content = [chat_logprob(token, with_top=True, by_id=by_id) for token in logprobs]
        return {
            "index": reply.index,
            "delta": delta,
            "logprobs": {"content": content, "refusal": None} if content else None,
            "finish_reason": finish_reason,
            **self._telling.reply_ids(token_ids),
        }

    def join(self, chunks: list[Json]) -> Json:
        content = [token for c in chunks if c["logprobs"] for token in c["logprobs"]["content"]]
        deltas = [chunk["delta"] for chunk in chunks]
        text = "".join(delta.get("content") or "" for delta in deltas)
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if calls := joined_calls(deltas):
            message |= {"content": None, "tool_calls": calls}
        return {
            "index": chunks[0]["index"],
            "message": message,
            "logprobs": {"content": content, "refusal": None} if content else None,
            "finish_reason": chunks[-1]["finish_reason"],
            **joined_ids(chunks),
        }

    def beside_chunk(self, choice: Json) -> Json:
        return self._telling.prompt_ids() if "role" in choice["delta"] else {}

    def beside_choices(self) -> Json:
        return {**self._telling.prompt_logprobs(), **self._telling.prompt_ids()}


class CompletionFormat:
    """/v1/completions. With `echo` a reply begins with its prompt.

    `text_offset` counts characters of the choice's text, which shows no special tokens of a reply.
    """

    id_prefix = "cmpl-"
    answer_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, *, echo: bool, logprobs: int | None, asked: Asked = NOTHING) -> None:
        """`logprobs` is the number of alternatives to tell, None for no log-probabilities."""
        self._echo, self._num_top = echo, logprobs
        self._telling = Telling(asked)
        self._prompt_of: dict[int, int] = {}  # of each reply that has opened, by its index
        self._scored_prompts: dict[int, tuple[TokenLogprob, ...]] = {}
        self._starts: dict[int, int] = {}  # start of each reply in its choice's text

    def chunks(self, reply: PlannedReply, event: GenerationEvent) -> list[Json]:
        self._telling.note(reply, event)
        if isinstance(event, TextDelta):
            return [self._reply_choice(reply, event)]
        if isinstance(event, Finished):
            return [self._choice(reply, "", finish_reason=event.reason)]
        if isinstance(event, PromptScored):
            self._scored_prompts[reply.prompt_index] = event.tokens
        is_known = isinstance(event, PromptScored) or (
            isinstance(event, Accepted) and reply.request.score_prompt is None
        )
        return [self._echoed_prompt(reply)] if self._echo and is_known else []

    def _echoed_prompt(self, reply: PlannedReply) -> Json:
        """The prompt as it was sent; token ids as the text of their bytes."""
        tokens = self._scored_prompts.get(reply.prompt_index, ())
        prompt = reply.request.prompt
        if isinstance(prompt, Text):
            text, offsets = str(prompt), _offsets_in(prompt, tokens)
        else:
            text, offsets = _joined(tokens)
        self._starts[reply.index] = len(text)
        return self._choice(reply, text, logprobs=self._logprobs(tokens, offsets))

    def _reply_choice(self, reply: PlannedReply, event: TextDelta) -> Json:
        start = self._starts.get(reply.index, 0)
        offsets = [start + (token.offset or 0) for token in event.logprobs]
        return self._choice(
            reply,
            event.text,
            logprobs=self._logprobs(event.logprobs, offsets),
            token_ids=event.token_ids,
        )

    def _choice(
        self,
        reply: PlannedReply,
        text: str,
        *,
        logprobs: Json | None = None,
        token_ids: tuple[int, ...] = (),
        finish_reason: str | None = None,
    ) -> Json:
        is_first = reply.index not in self._prompt_of
        self._prompt_of[reply.index] = reply.prompt_index
        return {
            "index": reply.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            **self._telling.reply_ids(token_ids),
            **(self._telling.prompt_ids(reply.prompt_index) if is_first else {}),
        }

    def _logprobs(self, tokens: tuple[TokenLogprob, ...], offsets: list[int]) -> Json | None:
        if self._num_top is None or not tokens:
            return None
        by_id = self._telling.names_by_id
        return completion_logprobs(tokens, offsets, self._num_top, by_id=by_id)

    def join(self, chunks: list[Json]) -> Json:
        parts = [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]]
        names = parts[0].keys() if parts else ()
        joined = {name: [item for part in parts for item in part[name]] for name in names}
        prompt_index = self._prompt_of[chunks[0]["index"]]
        return {
            "index": chunks[0]["index"],
            "text": "".join(chunk["text"] for chunk in chunks),
            "logprobs": joined or None,
            "finish_reason": chunks[-1]["finish_reason"],
            **joined_ids(chunks),
            **self._telling.prompt_ids(prompt_index),
            **self._telling.prompt_logprobs(prompt_index),
        }

    def beside_chunk(self, choice: Json) -> Json:
        return {}

    def beside_choices(self) -> Json:
        return {}


def _joined(tokens: tuple[TokenLogprob, ...]) -> tuple[str, list[int]]:
    """The text of the tokens' bytes, and the start of each token in it. A token that continues a
    character starts where that character does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts: list[str] = []
    offsets, place = [], 0
    for token in tokens:
        offsets.append(place)
        parts.append(decoder.decode(token.token_bytes))
        place += len(parts[-1])
    parts.append(decoder.decode(b"", final=True))
    return "".join(parts), offsets


def _offsets_in(prompt: str, tokens: tuple[TokenLogprob, ...]) -> list[int]:
    """The start of each token in the prompt as it was sent, in characters.

    Tokens that the tokenizer adds, such as a beginning of text or a space, have length 0 there.
    """
    data, place, places = prompt.encode(), 0, []
    for token in tokens:
        places.append(place)
        for own in (token.token_bytes, token.token_bytes.removeprefix(b" ")):
            if data.startswith(own, place):
                place += len(own)
                break
    return _characters_before(data, places)


def _characters_before(data: bytes, places: list[int]) -> list[int]:
    """For rising places in UTF-8: the number of complete characters before each."""
    counts, done, num = [], 0, 0
    for place in places:
        num += sum(byte & 0xC0 != 0x80 for byte in data[done:place])
        done = place
        is_inside = place < len(data) and data[place] & 0xC0 == 0x80
        counts.append(num - is_inside)
    return counts
