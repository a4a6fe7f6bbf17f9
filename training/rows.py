"""From conversations and texts to rows of tokens: what the training reads.

A row is `length + 1` token ids and as many weights, one byte each: how much the prediction of that
token counts, in tenths. Conversations are never cut, since a question whose fact fell off teaches
guessing; rows are filled with whole ones, and the little that stays open is padded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

END_OF_TEXT, TURN_START, TURN_END, PAD = 0, 1, 2, 3
FULL, LISTENING = 10, 1  # tenths: replies and plain text, and what the user and the system say
TOLD = 50  # what the user told, in a reply: a few tokens that all of remembering hangs on
OPEN_ROWS = 32  # rows that are filled at the same time

Tokens = NDArray[np.uint16]
Weights = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """tokens, weights: (rows, length + 1)."""

    tokens: Tokens
    weights: Weights

    def __len__(self) -> int:
        return len(self.tokens)

    def write(self, file: IO[bytes]) -> None:
        """The number of rows as 8 bytes, the tokens, the weights."""
        file.write(len(self).to_bytes(8, "little"))
        file.write(self.tokens.tobytes())
        file.write(self.weights.tobytes())
        file.flush()

    @classmethod
    def read(cls, file: IO[bytes], length: int) -> Rows:
        """What `write` wrote. Raises EOFError where the writer has ended."""
        count = int.from_bytes(_read_exactly(file, 8), "little")
        shape = (count, length + 1)
        size = count * (length + 1)
        tokens = np.frombuffer(_read_exactly(file, 2 * size), dtype=np.uint16).reshape(shape)
        weights = np.frombuffer(_read_exactly(file, size), dtype=np.uint8).reshape(shape)
        return cls(tokens, weights)


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"the process that makes conversations ended: {len(data)} of {size} bytes")
    return data


END_MARK = "<|endoftext|>"


def render(messages: list[dict[str, str]]) -> str:
    """A conversation in the tokenizer's chat template, closed as a document."""
    turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return "".join(turns) + END_MARK


def told_spans(messages: list[dict[str, str]]) -> list[tuple[int, int]]:
    """Where in the rendered text the replies repeat what the user told."""
    spans, start = [], 0
    for message in messages:
        content_start = start + len(f"<|im_start|>{message['role']}\n")
        for value in filter(None, message.get("told", "").split("\n")):
            pattern = rf"(?<!\w){re.escape(value)}(?!\w)"
            for found in re.finditer(pattern, message["content"], re.IGNORECASE):
                spans.append((content_start + found.start(), content_start + found.end()))
        start += len(render([message])) - len(END_MARK)
    return spans


class Encoder:
    """Texts to ids and weights, with the bundled model's tokenizer."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._assistant = self._tokenizer.encode("assistant").ids
        assert len(self._assistant) == 1, "the role is expected to be one token"

    def encode(self, texts: list[str]) -> list[Tokens]:
        encodings = self._tokenizer.encode_batch_fast(texts)
        return [np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]

    def decode(self, tokens: Tokens, *, with_marks: bool = False) -> str:
        """The text; with the marks of turns and ends where they are wanted."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=not with_marks))

    def weighted(self, conversations: list[list[dict[str, str]]]) -> list[tuple[Tokens, Weights]]:
        """Conversations as ids and weights, TOLD where a reply repeats what the user told."""
        encodings = self._tokenizer.encode_batch([render(messages) for messages in conversations])
        weighted = []
        for messages, encoding in zip(conversations, encodings, strict=True):
            tokens = np.array(encoding.ids, dtype=np.uint16)
            weights = self.conversation_weights(tokens)
            if spans := told_spans(messages):
                starts, ends = np.array(encoding.offsets).T
                for start, end in spans:
                    weights[(starts < end) & (ends > start)] = TOLD
            weighted.append((tokens, weights))
        return weighted

    def conversation_weights(self, tokens: Tokens, *, listening: int = LISTENING) -> Weights:
        """FULL for what the assistant says, its end of turn included; `listening` elsewhere."""
        index = np.arange(len(tokens))
        starts = np.flatnonzero(tokens == TURN_START)
        by_assistant = np.zeros(len(tokens), dtype=bool)
        by_assistant[starts] = tokens[np.minimum(starts + 1, len(tokens) - 1)] == self._assistant[0]
        start = np.maximum.accumulate(np.where(tokens == TURN_START, index, -1))
        end = np.maximum.accumulate(np.where(tokens == TURN_END, index, -1))
        end_before = np.concatenate([[-1], end[:-1]])
        # After "<|im_start|>assistant\n" and up to the end of the turn.
        is_reply = by_assistant[start] & (index >= start + 3) & (end_before < start) & (start >= 0)
        return np.where(is_reply, FULL, listening).astype(np.uint8)


def pack(documents: Iterable[tuple[Tokens, Weights]], length: int) -> Rows:
    """Whole documents into rows, each into the fullest open row that has room.

    A document of more than `length + 1` tokens is left out.
    """
    packer = _Packer(length + 1)
    for tokens, weights in documents:
        if len(tokens) <= length + 1:
            packer.add(tokens, weights)
    return packer.rows()


class _Packer:
    def __init__(self, size: int) -> None:
        self._size = size
        self._open: list[list[tuple[Tokens, Weights]]] = []
        self._free: list[int] = []
        self._closed: list[list[tuple[Tokens, Weights]]] = []

    def add(self, tokens: Tokens, weights: Weights) -> None:
        fitting = [i for i, free in enumerate(self._free) if free >= len(tokens)]
        if not fitting:
            if len(self._open) == OPEN_ROWS:
                self._close(int(np.argmin(self._free)))
            self._open.append([])
            self._free.append(self._size)
            fitting = [len(self._open) - 1]
        best = min(fitting, key=self._free.__getitem__)
        self._open[best].append((tokens, weights))
        self._free[best] -= len(tokens)

    def _close(self, i: int) -> None:
        self._closed.append(self._open.pop(i))
        del self._free[i]

    def rows(self) -> Rows:
        while self._open:
            self._close(0)
        tokens = np.full((len(self._closed), self._size), PAD, dtype=np.uint16)
        weights = np.zeros((len(self._closed), self._size), dtype=np.uint8)
        for i, documents in enumerate(self._closed):
            joined = np.concatenate([document[0] for document in documents])
            tokens[i, : len(joined)] = joined
            weights[i, : len(joined)] = np.concatenate([document[1] for document in documents])
        # What begins a document cannot be known from the one before.
        weights[:, 1:][tokens[:, :-1] == END_OF_TEXT] = 0
        return Rows(tokens, weights)


def cut(tokens: Tokens, length: int) -> Rows:
    """Plain text of many documents into rows, cut wherever a row ends."""
    count = len(tokens) // (length + 1)
    rows = tokens[: count * (length + 1)].reshape(count, length + 1)
    weights = np.full(rows.shape, FULL, dtype=np.uint8)
    weights[:, 1:][rows[:, :-1] == END_OF_TEXT] = 0
    return Rows(rows, weights)


def documents(tokens: Tokens) -> list[Tokens]:
    """The documents of a token file, each with its end-of-text token."""
    ends = np.flatnonzero(tokens == END_OF_TEXT) + 1
    return np.split(tokens[: ends[-1]], ends[:-1]) if len(ends) else []
