"""Finds borders: places where a cut of the text changes no id.

A border is after a letter or digit and before a space, for tokenizers whose steps are all known
never to look across such a place. The text before the cut then ends a word, and the text after it
is read as in the whole text. Other tokenizers read their texts whole. This module reads a
tokenizer's own file; it encodes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# None of these moves, drops or merges anything across a border.
LOCAL_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase"})
# One character of these may come of four bytes: mathematical letters, composed syllables.
MAX_SHRINKING = 4

# Patterns of published byte-level tokenizers: of words (no match goes on from a letter or digit to
# a space) and of digits. Another pattern might look behind, or hold "New York".
WORD_PATTERNS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    }
)
DIGIT_PATTERNS = frozenset(
    {r"[0-9]", r"\d", r"\p{N}", r"[0-9][0-9][0-9]", r"[0-9]{1,3}", r"\d{1,3}", r"\p{N}{1,3}"}
)
KEEPING = frozenset({"Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"})

ENDS_IN_A_WORD = re.compile(r"[^\W_]$")
GOES_OVER_A_BORDER = re.compile(r"[^\W_] ")


def last_border(text: str, low: int, high: int) -> int | None:
    """The last place between `low` and `high` where the text may be cut, or None."""
    place = text.rfind(" ", low + 1, high)
    while place != -1 and not text[place - 1].isalnum():
        place = text.rfind(" ", low + 1, place)
    return None if place == -1 else place


def has_safe_borders(state: dict[str, Any]) -> bool:
    """Whether `last_border` is right for the tokenizer whose file this is."""
    normalizers = _steps(state.get("normalizer"), "normalizers")
    return (
        all(step["type"] in LOCAL_NORMALIZERS for step in normalizers)
        and _splits_words(_steps(state.get("pre_tokenizer"), "pretokenizers"))
        and not any(map(_reaches_over, state.get("added_tokens", ())))
    )


def max_characters_per_token(state: dict[str, Any]) -> int | None:
    """The most characters that one token can stand for; None if that is not known."""
    model, added = state["model"], state.get("added_tokens", ())
    vocabulary = model.get("vocab", {})
    is_complete = (
        model.get("type") == "BPE"
        and has_safe_borders(state)
        and all(character in vocabulary for character in byte_characters())
        and not any(token.get("lstrip") or token.get("rstrip") for token in added)
    )
    if not is_complete:
        return None
    longest = max(len(text) for text in [*vocabulary, *(token["content"] for token in added)])
    return longest * MAX_SHRINKING if state.get("normalizer") else longest


def byte_characters() -> list[str]:
    """GPT-2's 256 characters for bytes: printable Latin-1 stands for itself; the other bytes are
    U+0100 and up, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _steps(part: dict[str, Any] | None, of_a_sequence: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[of_a_sequence] for step in _steps(inner, of_a_sequence)]


def _splits_words(steps: Iterable[dict[str, Any]]) -> bool:
    """Whether all steps are known, and one of them cuts at every border."""
    are_split = False
    for step in steps:
        match step:
            case {"type": "ByteLevel"}:
                # Its unsplit parts have no spaces left, at which a later pattern could split.
                are_split = are_split or step.get("use_regex", True)
                if not are_split:
                    return False
            case {"type": "Digits"}:
                pass
            case {"type": "Punctuation", "behavior": behavior} if behavior in KEEPING:
                pass
            case {"type": "Split", "behavior": behavior, "pattern": {"Regex": pattern}} if (
                behavior in KEEPING and not step.get("invert")
            ):
                if pattern in WORD_PATTERNS and behavior == "Isolated":
                    are_split = True
                elif pattern not in DIGIT_PATTERNS:
                    return False
            case _:
                return False
    return are_split


def _reaches_over(token: dict[str, Any]) -> bool:
    """Whether an added token could stand on both sides of a border, or look over it."""
    content = token["content"]
    forms = {content, content.lower(), unicodedata.normalize("NFKC", content)}
    return (
        any(GOES_OVER_A_BORDER.search(form) for form in forms)
        or bool(token.get("rstrip") and any(map(ENDS_IN_A_WORD.search, forms)))
        or bool(token.get("single_word") and any(form.startswith(" ") for form in forms))
    )
