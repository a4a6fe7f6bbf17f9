"""Where the turns of a conversation begin among its ids: at the markup before each message of the
user's, as the model's template writes it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from falcon_mamba_app.protocol import Conversation, Message, Tokenizer

PROBES = ("x", "y")
MAX_WORDS_IDS, MAX_WORDS = 24, 60


def opening_of_turns(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids between whatever came before and a user's words; empty where no message has any."""
    first = _before_last([], tokenizer)
    later = _before_last([Message("user", "x"), Message("assistant", "x")], tokenizer)
    num_same = 0
    while num_same < min(len(first), len(later)) and first[-1 - num_same] == later[-1 - num_same]:
        num_same += 1
    return tuple(first[len(first) - num_same :])


def turn_starts(token_ids: Sequence[int], opening: tuple[int, ...]) -> list[int]:
    """The places of the openings, rising."""
    if not opening:
        return []
    ids, looked_for = array("i", token_ids), array("i", opening)
    starts: list[int] = []
    at = -1
    while True:
        try:
            at = ids.index(opening[0], at + 1)
        except ValueError:
            return starts
        if ids[at : at + len(opening)] == looked_for:
            starts.append(at)


def equal_parts(num_tokens: int, num_parts: int) -> list[int]:
    """Where the parts of a text without turns begin."""
    return sorted({num_tokens * part // num_parts for part in range(num_parts)})


def first_words(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The beginning of a text, in one line without markup."""
    text = tokenizer.decode(token_ids[:MAX_WORDS_IDS]).partition("<|")[0]
    words = " ".join(text.replace("\ufffd", "").split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _before_last(before: list[Message], tokenizer: Tokenizer) -> list[int]:
    """The ids before the words of the user's message that follows these."""
    one, other = (
        tokenizer.encode(Conversation([*before, Message("user", probe)])) for probe in PROBES
    )
    num_same = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one)
    )
    return one[:num_same]
