"""Texts of any length: a chronicle that is made of sentences by a seed, or somebody's own text.

The chronicle is made here, so that nobody has read it in training; the same seed gives the same
text everywhere. It tells nothing about anybody who has a name: facts can be hidden in it.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from random import Random

from falcon_mamba_app.errors import InvalidRequest, PromptTooLong
from falcon_mamba_app.protocol import ModelInfo, Text, Tokenizer

PIECE_CHARACTERS = 20_000  # tokenised at a time

# One of each column makes a sentence; every sentence is true of the same village, and of no use.
WHEN = (
    *("In the morning", "At noon", "In the evening", "After the rain", "On market day"),
    *("Before the harvest", "During the winter", "Late at night", "Early in spring", "That week"),
)
WHO = (
    *("the miller", "the baker", "an old fisherman", "the teacher", "a young shepherd"),
    *("the carpenter", "two children", "the innkeeper", "a tired postman", "the gardener"),
    *("a quiet widow", "the blacksmith", "three farmers", "the ferryman", "a passing trader"),
)
DID = (
    *("carried a basket over", "looked for a lost key near", "mended a fence behind"),
    *("told a long story beside", "waited for a friend at", "swept the leaves from"),
    *("counted the geese by", "painted a door next to", "planted beans around"),
    *("found a small coin under", "heard music from", "walked twice around"),
)
WHERE = (
    *("the stone bridge", "the old well", "the church", "the mill pond", "the market hall"),
    *("the school", "the apple orchard", "the river bank", "the empty barn", "the narrow lane"),
    *("the bakery", "the hill", "the garden wall", "the ferry", "the wooden tower"),
)
AND = (
    *("and nobody was in a hurry", "and the dog slept", "while the bell was ringing"),
    *("and then it grew quiet", "because the day was warm", "and the wind came from the sea"),
    *("while bread was in the oven", "and the lamps were lit", "although it was cold"),
    *("and went home before dark", "as everybody had expected", "and thought of the next day"),
)


def sentences(seed: str) -> Iterator[str]:
    """The chronicle of this seed, without end; one sentence at a time."""
    random = Random(seed)
    while True:
        when, who, did, where, rest = (random.choice(c) for c in (WHEN, WHO, DID, WHERE, AND))
        yield f"{when} {who} {did} {where}, {rest}."


def chronicle_ids(tokenizer: Tokenizer, model: ModelInfo, num_tokens: int, seed: str) -> array[int]:
    """This many ids of the chronicle. A million take a second, so call it on a thread."""
    told = sentences(seed)
    size = _piece_size(model) // 80
    pieces = (" ".join(itertools.islice(told, max(1, size))) + "\n" for _ in itertools.count())
    return _ids(tokenizer, pieces, num_tokens)


def own_ids(tokenizer: Tokenizer, model: ModelInfo, num_tokens: int, text: str) -> array[int]:
    """This many ids of a text, which is repeated if it is too short. Raises InvalidRequest."""
    if not text.strip():
        raise InvalidRequest("the text is empty; paste one, or take the chronicle", param="text")
    size = _piece_size(model)
    pieces = (text[at : at + size] for at in range(0, len(text), size))
    once = _ids(tokenizer, pieces, num_tokens)
    return (once * -(-num_tokens // len(once)))[:num_tokens]


def refuse_too_long(num_tokens: int, model: ModelInfo) -> None:
    """Raises PromptTooLong with both numbers."""
    limit = model.max_prompt_tokens
    if limit is not None and num_tokens > limit:
        raise PromptTooLong(
            f"a text of {num_tokens:,} tokens is longer than this server reads: at most"
            f" {limit:,} (--max-prompt-tokens)",
            param="tokens",
        )


def _piece_size(model: ModelInfo) -> int:
    """Characters that cannot have more tokens than the server allows: each has 4 bytes or fewer."""
    limit = model.max_prompt_tokens or PIECE_CHARACTERS
    return max(1, min(PIECE_CHARACTERS, limit // 4))


def _ids(tokenizer: Tokenizer, pieces: Iterator[str], num_tokens: int) -> array[int]:
    """The ids of the pieces, at most so many."""
    ids = array("i")
    for piece in pieces:
        ids.extend(tokenizer.encode(Text(piece)))
        if len(ids) >= num_tokens:
            break
    return ids[:num_tokens]
