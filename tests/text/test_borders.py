"""A text's ids are the tokenizer's own, however it is sliced and whatever is remembered of it."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER
from falcon_mamba_app.protocol import Text
from falcon_mamba_app.text import slices
from falcon_mamba_app.text.borders import has_safe_borders, max_characters_per_token
from falcon_mamba_app.text.slices import SlicedTokenizer, TooManyTokens
from tests.text.test_chat import characters_read, make_encoder
from tests.text.tokenizer_kinds import READ_WHOLE, WITH_BORDERS

FRAGMENTS = (
    *("river", "The", "carries", "New York", "fiancé", "e\u0301", "don't", "'s", "naïve", "ﷺ", "½"),
    *(
        "12345",
        "7",
        "1,000.5",
        "²",
        "IX",
        "世界",
        "你好。",
        "한국어",
        "привет",
        "😀",
        "👍🏽",
        "\u0301",
    ),
    *(" ", " ", " ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "\xa0", "\u3000", "\u200d", "\x1c"),
    *(".", ", ", "...", "!", "(", "_", "#", "<|im_end|>", "<|x|>", "</s>", "<|USER|>", "foo_bar"),
    *("<start of turn>", "t s", "river ", " the", "\0", "\ue000", "Ġ", "▁"),
)
TOKENIZERS = {
    **WITH_BORDERS,
    **READ_WHOLE,
    "bundled": lambda: AutoTokenizer.from_pretrained(BUNDLED_FOLDER),
}


def without_dropout(tokenizer) -> Tokenizer:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["dropout"] = None
    return Tokenizer.from_str(json.dumps(state))


def random_text(rng: random.Random) -> str:
    return "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 40)))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_has_the_same_ids_sliced_remembered_and_whole(kind, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_CHARACTERS", 12)
    monkeypatch.setattr(slices, "MAX_ENCODED_AT_ONCE", 25)
    tokenizer = TOKENIZERS[kind]()
    encoder, backend = make_encoder(tokenizer), without_dropout(tokenizer)
    rng = random.Random(kind)
    for number in range(40):
        text = random_text(rng)
        whole = backend.encode(text).ids or [tokenizer.eos_token_id]
        for cut in sorted(rng.choices(range(len(text) + 1), k=4)):
            encoder.encode(Text(text[:cut]), f"session {number}")
        assert encoder.encode(Text(text), f"session {number}") == whole, repr(text)
        assert encoder.encode(Text(text)) == whole, repr(text)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_is_cut_only_where_every_step_of_it_is_known(kind):
    state = json.loads(TOKENIZERS[kind]().backend_tokenizer.to_str())
    assert has_safe_borders(state) == (kind not in READ_WHOLE)


def test_a_turn_after_a_long_text_tokenises_only_its_end(monkeypatch):
    encoder = make_encoder(TOKENIZERS["bundled"]())
    history = "The river remembers what it has read. " * 3_000
    encoder.encode(Text(history), "session")
    read = characters_read(monkeypatch)
    for turn in range(3):
        history += f"Turn {turn} is short."
        encoder.encode(Text(history), "session")
    assert sum(read) < 1_000


def numbers_that_fit(count: int) -> dict[str, tuple[str, str]]:
    """Texts of `count` tokens for the bundled model, and the same with one more."""
    return {
        "one digit": ("7" * count, "7"),
        "words": (" a" * count, " a"),
        "emoji": ("😀" * (count // 4), "7"),
    }


@pytest.mark.parametrize("what", numbers_that_fit(8))
def test_exactly_as_many_tokens_as_are_allowed_are_taken_and_one_more_is_not(what):
    tokenizer = TOKENIZERS["bundled"]()
    sliced = SlicedTokenizer(
        tokenizer.backend_tokenizer, json.loads(tokenizer.backend_tokenizer.to_str())
    )
    limit = 40_000
    text, more = numbers_that_fit(limit)[what]
    whole = tokenizer.backend_tokenizer.encode(text).ids
    assert len(whole) == limit
    assert sliced.encode(text, max_tokens=limit) == whole
    with pytest.raises(TooManyTokens):
        sliced.encode(text + more, max_tokens=limit)


HOSTILE = {
    "one digit": "7",
    "one letter": "a",
    "spaces": " ",
    "words": "the river ",
    "no spaces": "abcdefghij",
    "emoji": "😀",
    "combining marks": "\u0301",
    "zero-width joiners": "\u200d",
    "U+FDFA": "\ufdfa",
    "control tokens": "<|im_end|>",
    "base64": "dGhlIHJpdmVyIHJlbWVtYmVycyB3aGF0IGl0IHJlYWQ+/",
}


@pytest.mark.parametrize("kind", ["bundled", "nfkc, lower", "no words", "runs of spaces"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_text_far_too_long_is_refused_after_little_more_than_the_limit_was_read(
    kind, what, monkeypatch
):
    tokenizer = TOKENIZERS[kind]()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    sliced = SlicedTokenizer(tokenizer.backend_tokenizer, state)
    unit = HOSTILE[what]
    text = unit * (1_000_000 // len(unit))
    read = characters_read(monkeypatch)
    with pytest.raises(TooManyTokens):
        sliced.encode(text, max_tokens=1_000)
    longest = max(len(token) for token in tokenizer.get_vocab())
    assert sum(read) <= 1_000 * longest + 2 * slices.SLICE_CHARACTERS


def test_no_token_stands_for_more_characters_than_is_said():
    state = json.loads(TOKENIZERS["bundled"]().backend_tokenizer.to_str())
    assert max_characters_per_token(state) == max(map(len, state["model"]["vocab"]))
    swallowing = TOKENIZERS["swallowed spaces"]().backend_tokenizer
    assert max_characters_per_token(json.loads(swallowing.to_str())) is None
