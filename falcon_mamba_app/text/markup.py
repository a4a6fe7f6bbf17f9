"""Added tokens: the ids of the template's markup, and texts that must never become markup.

Every added token with visible text counts as markup, even if the template does not use it. One
tokenizer reads texts in which markup counts. Another one, a copy that knows no markup, reads texts
of people. It does not know conversations.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.text.slices import NO_LIMIT, SlicedTokenizer

# Shorter texts are not worth remembering: 1,000 characters take 1 ms.
MIN_REMEMBERED = 1_000
# The white space that a token may swallow beside it.
WHITE_SPACE = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@dataclass(frozen=True, slots=True)
class MarkupToken:
    """An added token where the template wrote it; some swallow the white space beside them."""

    token_id: int
    swallows_before: bool = False
    swallows_after: bool = False


class Markup:
    """The tokens that structure a prompt. May be used from several threads."""

    def __init__(self, backend: Tokenizer) -> None:
        added = backend.get_added_tokens_decoder()
        visible = {token_id: token for token_id, token in added.items() if token.content.strip()}
        self._tokens = {
            token_id: MarkupToken(token_id, token.lstrip, token.rstrip)
            for token_id, token in visible.items()
        }
        # Longest first, as the tokenizer itself finds them.
        texts = sorted((token.content for token in visible.values()), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, texts))) if texts else None
        state = _own_state(backend)
        self._parsing = _load(state)
        self._sliced_parsing = SlicedTokenizer(self._parsing, state)
        for token in state["added_tokens"]:
            token["special"] = token["special"] or token["id"] in visible
        literal = _load(state)
        literal.encode_special_tokens = True
        self._literal = SlicedTokenizer(literal, state)
        self._before, self._after = self._frame()
        self._forbidden = visible.keys() - self._characters_of_their_own(visible)
        self._remembered = _Remembered(max_characters=16_000_000)
        self.split = lru_cache(maxsize=1_024)(self._split)

    def _frame(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after a whole text."""
        bare = self._parsing.encode("a", add_special_tokens=False).ids
        framed = self._parsing.encode("a", add_special_tokens=True).ids
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return framed[:start], framed[start + len(bare) :]
        return [], []

    def _characters_of_their_own(self, visible: dict[int, Any]) -> frozenset[int]:
        """Ids that are the only spelling of a character, so contents may contain them."""
        return frozenset(
            token_id
            for token_id, token in visible.items()
            if len(token.content) == 1
            and not token.special
            and token_id in self._literal.encode(token.content)
        )

    def _split(self, text: str) -> tuple[str | MarkupToken, ...]:
        """A template's own text as plain text and markup, in order."""
        parts: list[str | MarkupToken] = []
        encoding, end = self._parsing.encode(text, add_special_tokens=False), 0
        for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self._tokens:
                parts += [text[end:start], self._tokens[token_id]]
                end = stop
        return tuple(part for part in (*parts, text[end:]) if part != "")

    def ids_in(self, text: str) -> list[int]:
        """The markup of a text in which it counts."""
        return [token_id for token_id in self.encode_parsing(text) if token_id in self._tokens]

    def first_in(self, text: str) -> str | None:
        """The first added token that the text spells out."""
        found = self._pattern.search(text) if self._pattern else None
        return found.group() if found else None

    def marked_ends(self, text: str, mark: str) -> str:
        """The text with `mark` after each added token that it spells, and the white space there."""
        if self._pattern is None:
            return text
        return re.sub(rf"(?:{self._pattern.pattern})\s*", lambda found: found.group() + mark, text)

    def encode_literal(self, text: str, *, max_tokens: int = NO_LIMIT) -> list[int]:
        """Ids of a text in which nothing is markup. Raises TooManyTokens.

        Long texts are remembered: a conversation sends its whole history with every turn, and the
        cost of a turn should not grow with it.
        """
        if len(text) < MIN_REMEMBERED:
            return self._without_markup(text, max_tokens) if text else []
        known = self._remembered.get(text)
        if known is None:
            known = array("I", self._without_markup(text, max_tokens))
            self._remembered.put(text, known)
        return known.tolist()

    def _without_markup(self, text: str, max_tokens: int) -> list[int]:
        token_ids = self._literal.encode(text, max_tokens=max_tokens)
        if self._forbidden.isdisjoint(token_ids):
            return token_ids
        # The plain vocabulary also holds this text as one token: spell it in two halves.
        found = self._pattern.finditer(text) if self._pattern else ()
        cuts = [0, *(match.start() + 1 for match in found), len(text)]
        halves = (text[start:end] for start, end in zip(cuts, cuts[1:], strict=False))
        token_ids = [token_id for half in halves for token_id in self._literal.encode(half)]
        if not self._forbidden.isdisjoint(token_ids):
            raise InvalidRequest(
                "a message spells one of the model's control tokens in a way that its tokenizer"
                " cannot quote; write it differently",
                param="messages",
            )
        return token_ids

    def refuse_characters(self, num_characters: int, max_tokens: int) -> None:
        """Raises TooManyTokens if this number of characters is too many tokens in any case."""
        self._literal.refuse_characters(num_characters, max_tokens)

    def count_at_least(self, text: str, *, max_tokens: int) -> int:
        """The least number of tokens of a content. Raises TooManyTokens beyond `max_tokens`."""
        self.refuse_characters(len(text), max_tokens)
        return self._literal.count_at_least(text, max_tokens=max_tokens)

    def encode_parsing(self, text: str, *, max_tokens: int = NO_LIMIT) -> list[int]:
        """Ids of a text in which markup counts. Raises TooManyTokens."""
        return self._sliced_parsing.encode(text, max_tokens=max_tokens)

    def framed(self, token_ids: list[int]) -> list[int]:
        """The ids of a whole text, with the tokenizer's own beginning and end."""
        return [*self._before, *token_ids, *self._after]

    def border(self, text: str) -> int:
        """The last border near the end of a text in which markup counts, or 0. The ids of both
        parts are those of the whole, whatever text follows.
        """
        return self._sliced_parsing.border(text)


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


def _own_state(backend: Tokenizer) -> dict[str, Any]:
    """The tokenizer's file, for loading copies: transformers changes the settings of its tokenizer
    between calls. Random dropping of merges is off, so a prompt always has the same ids.
    """
    state: dict[str, Any] = json.loads(backend.to_str())
    state["truncation"] = state["padding"] = None
    if "dropout" in state["model"]:
        state["model"]["dropout"] = None
    return state


def _load(state: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(state))
