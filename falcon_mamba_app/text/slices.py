"""Tokenises texts of any length in slices, and only as far as the limit requires.

If a text can be cut, the ids of its slices joined are those of the whole text. If not, slices give
a lower bound of its tokens before it is read whole. Either way a text that is far too long costs no
more than one that just fits. It does not know messages or sessions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

from falcon_mamba_app.text.borders import (
    has_safe_borders,
    last_border,
    max_characters_per_token,
)

# U+FDFA becomes 18 characters in NFKC: such a slice takes 20 MB, any other 3. Divisible by all
# numbers to ten, so that texts of one repeated word come in slices that are the same.
SLICE_CHARACTERS = 15_120
# The most tokens that one cut adds; a word cut in two has usually one or two more.
MAX_SEAM_TOKENS = 32
# `encode` blocks all other threads of the process; a batch of one does not, and takes 50 µs longer.
MAX_ENCODED_AT_ONCE = 1_000
NO_LIMIT = sys.maxsize


class TooManyTokens(Exception):
    """A text has more tokens than allowed; the excess was not counted."""


class SlicedTokenizer:
    """Text to ids, without the frame of a whole text. Safe to call from threads."""

    def __init__(self, tokenizer: Tokenizer, state: dict[str, Any]) -> None:
        """`state` is the tokenizer's own file."""
        self._tokenizer = tokenizer
        self._has_borders = has_safe_borders(state)
        self._max_characters_per_token = max_characters_per_token(state)

    def encode(self, text: str, *, max_tokens: int = NO_LIMIT) -> list[int]:
        """The text's ids. Raises TooManyTokens where they are more than `max_tokens`."""
        self.refuse_characters(len(text), max_tokens)
        token_ids: list[int] = []
        start = 0
        while start < len(text):
            end = self._end_of_stretch(text, start, max_tokens - len(token_ids))
            token_ids += self._encode(text[start:end])
            start = end
            if len(token_ids) > max_tokens:
                raise TooManyTokens
        return token_ids

    def border(self, text: str) -> int:
        """The last place near the text's end where it may be cut, or 0."""
        if not self._has_borders:
            return 0
        return last_border(text, max(0, len(text) - SLICE_CHARACTERS), len(text)) or 0

    def refuse_characters(self, num_characters: int, max_tokens: int) -> None:
        """Raises TooManyTokens if this number of characters is too many tokens in any case."""
        per_token = self._max_characters_per_token
        if per_token is not None and num_characters > per_token * max_tokens:
            raise TooManyTokens

    def count_at_least(self, text: str, *, max_tokens: int) -> int:
        """The least number of tokens of the text. Raises TooManyTokens beyond `max_tokens`."""
        counter = _Counter(self._encode, max_tokens)
        for start in range(0, len(text), SLICE_CHARACTERS):
            counter.add(text[start : start + SLICE_CHARACTERS])
        return counter.at_least

    def _end_of_stretch(self, text: str, start: int, max_tokens: int) -> int:
        """The end of the next slice, or of as many slices as are needed to reach a border. Raises
        TooManyTokens.
        """
        counter = _Counter(self._encode, max_tokens)
        low, high = start, start + SLICE_CHARACTERS
        while high < len(text):
            border = last_border(text, low, high) if self._has_borders else None
            if border is not None:
                return border
            counter.add(text[low:high])
            low, high = high, high + SLICE_CHARACTERS
        return len(text)

    def _encode(self, text: str) -> list[int]:
        if len(text) < MAX_ENCODED_AT_ONCE:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids


class _Counter:
    """Counts the tokens of slices that were cut anywhere, less the most that the cuts may add."""

    def __init__(self, encode: Callable[[str], list[int]], max_tokens: int) -> None:
        self._encode, self._max_tokens = encode, max_tokens
        self._slice, self._num_tokens = "", 0
        self.at_least = 0

    def add(self, text: str) -> None:
        if text != self._slice:  # a text of one repeated word is counted once
            self._slice, self._num_tokens = text, len(self._encode(text))
        self.at_least += max(0, self._num_tokens - MAX_SEAM_TOKENS)
        if self.at_least > self._max_tokens:
            raise TooManyTokens
