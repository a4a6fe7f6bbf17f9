"""Special tokens: which texts of the template stand for them, and text that must not.

One tokenizer reads them in text, another, a copy, never does. It does not know conversations.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict

from tokenizers import Tokenizer

# Shorter texts are tokenised faster than they are worth remembering: 1,000 characters take 1 ms.
MIN_REMEMBERED = 1_000


class Markup:
    """The tokens that structure a prompt. May be used from several threads."""

    def __init__(self, backend: Tokenizer, template_text: str) -> None:
        """`template_text` is what the chat template writes itself, "" without one: an added token
        in it is markup, even if the tokenizer's file does not call it special.
        """
        self._ids = {
            token.content: token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special or (token.content.strip() and token.content in template_text)
        }
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._parsing = _copy(backend, special=frozenset())
        self._literal = _copy(backend, special=frozenset(self._ids))
        self._literal.encode_special_tokens = True
        self._remembered = _Remembered(max_characters=16_000_000)

    def split(self, text: str) -> list[str | int]:
        """The text of a template as plain text and the ids of special tokens, in order."""
        if not self._ids:
            return [text]
        return [self._ids.get(part, part) for part in self._pattern.split(text) if part]

    def first_in(self, text: str) -> str | None:
        """The first special token that the text spells out."""
        found = self._pattern.search(text) if self._ids else None
        return found.group() if found else None

    def encode_literal(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special.

        Long texts are remembered: a conversation sends its whole history with every turn, and a
        turn should not cost more the longer that is.
        """
        if len(text) < MIN_REMEMBERED:
            return self._literal.encode(text, add_special_tokens=False).ids if text else []
        known = self._remembered.get(text)
        if known is None:
            # As a batch of one: `encode` would hold up every other thread of the process meanwhile.
            (encoding,) = self._literal.encode_batch_fast([text], add_special_tokens=False)
            known = array("I", encoding.ids)
            self._remembered.put(text, known)
        return known.tolist()

    def encode_parsing(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text in which special tokens count; optionally with the tokenizer's own
        beginning and end.
        """
        if len(text) < MIN_REMEMBERED:
            return self._parsing.encode(text, add_special_tokens=add_special_tokens).ids
        (encoding,) = self._parsing.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return encoding.ids


class _Remembered:
    """Texts and their ids, up to a number of characters; the least recently used go first."""

    def __init__(self, *, max_characters: int) -> None:
        self._max_characters = max_characters
        self._num_characters = 0
        self._ids: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> array[int] | None:
        with self._lock:
            if text in self._ids:
                self._ids.move_to_end(text)
            return self._ids.get(text)

    def put(self, text: str, ids: array[int]) -> None:
        with self._lock:
            if text not in self._ids:
                self._num_characters += len(text)
            self._ids[text] = ids
            while self._num_characters > self._max_characters:
                oldest, _ = self._ids.popitem(last=False)
                self._num_characters -= len(oldest)


def _copy(backend: Tokenizer, *, special: frozenset[str]) -> Tokenizer:
    """A tokenizer of our own, since transformers changes its one's settings between calls."""
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["content"] in special
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
