"""Ids to text: the pieces of a stream joined are the text of all ids at once."""

from __future__ import annotations

import random
import time

import pytest
from tokenizers import Tokenizer

from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.text.detokenizer import Detokenizer
from falcon_mamba_app.text.stop_strings import StopStrings
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.checkpoints import make_tokenizer


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    return make_tokenizer().backend_tokenizer


@pytest.fixture(scope="module")
def vocabulary(backend: Tokenizer) -> Vocabulary:
    return Vocabulary(backend)


def stream(vocabulary: Vocabulary, token_ids: list[int], **options: object) -> str:
    detokenizer = Detokenizer(vocabulary, **options)
    pieces = [detokenizer.feed(token_id) for token_id in token_ids]
    return "".join(pieces) + detokenizer.flush()


@pytest.mark.parametrize("seed", range(40))
def test_streamed_pieces_joined_are_the_one_shot_decode_of_any_ids(backend, vocabulary, seed):
    draw = random.Random(seed)
    ids = [draw.randrange(backend.get_vocab_size()) for _ in range(200)]
    assert stream(vocabulary, ids) == backend.decode(ids, skip_special_tokens=True)
    assert vocabulary.decode(ids) == backend.decode(ids, skip_special_tokens=True)


def test_the_bundled_tokenizer_streams_as_it_decodes():
    backend = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))
    draw = random.Random(0)
    ids = [draw.randrange(backend.get_vocab_size()) for _ in range(3_000)]
    assert stream(Vocabulary(backend), ids) == backend.decode(ids, skip_special_tokens=True)


def test_bytes_of_every_token_are_what_the_tokenizer_decodes(backend, vocabulary):
    for token_id in range(backend.get_vocab_size()):
        assert vocabulary.token_text(token_id) == backend.decode(
            [token_id], skip_special_tokens=False
        )


def test_a_character_of_four_tokens_comes_whole(backend, vocabulary):
    ids = backend.encode("🦅").ids
    assert len(ids) > 1
    detokenizer = Detokenizer(vocabulary)
    pieces = [detokenizer.feed(token_id) for token_id in ids]
    assert pieces == [""] * (len(ids) - 1) + ["🦅"]


def test_special_tokens_and_unknown_ids_are_not_shown(backend, vocabulary):
    (end,) = backend.encode("<|im_end|>").ids
    assert stream(vocabulary, [end, 10**6, *backend.encode("Hello").ids, end]) == "Hello"
    assert vocabulary.token_text(end) == "<|im_end|>"
    assert vocabulary.token_bytes(10**6) == b""


def test_a_reply_completes_the_character_its_prompt_began(backend, vocabulary):
    ids = backend.encode("a🦅b").ids
    cut = next(place for place in range(1, len(ids)) if "\ufffd" in backend.decode(ids[:place]))
    assert stream(vocabulary, ids[cut:], prompt_ids=ids[:cut]) == "🦅b"


def test_a_prompt_of_nothing_but_broken_bytes_does_no_harm(backend, vocabulary):
    broken = [backend.token_to_id(letter) for letter in "Ã©ÿĀð"]
    ids = backend.encode("Hello").ids
    assert stream(vocabulary, ids, prompt_ids=[i for i in broken if i is not None]).endswith(
        "Hello"
    )


def test_a_long_run_of_broken_bytes_costs_the_same_for_each(backend, vocabulary):
    lone = next(i for i in range(backend.get_vocab_size()) if vocabulary.token_bytes(i) == b"\x80")
    started = time.thread_time()
    assert stream(vocabulary, [lone] * 100_000) == "\ufffd" * 100_000
    assert time.thread_time() - started < 5


def test_tokenizers_that_are_not_byte_level_are_refused(backend):
    from tokenizers import decoders

    other = Tokenizer.from_str(backend.to_str())
    other.decoder = decoders.Metaspace()
    with pytest.raises(CheckpointError, match="not byte-level"):
        Vocabulary(other)


def first_stop(text: str, stop: list[str]) -> int:
    return min([place for s in stop if (place := text.find(s)) >= 0], default=len(text))


@pytest.mark.parametrize("seed", range(300))
def test_stop_strings_cut_where_find_would_however_the_text_is_cut(seed):
    draw = random.Random(seed)
    text = "".join(draw.choice("ab\n") for _ in range(draw.randrange(40)))
    stop = ["".join(draw.choices("ab\n", k=draw.randint(1, 5))) for _ in range(draw.randint(1, 4))]
    finder, rest, shown = StopStrings(stop), text, ""
    while rest:
        length = draw.randint(1, 4)
        shown += finder.feed(rest[:length])
        rest = rest[length:]
        assert first_stop(text, stop) >= len(shown), "shown what had to be held back"
    shown += finder.flush()
    assert shown == text[: first_stop(text, stop)]
    assert finder.is_stopped == (first_stop(text, stop) < len(text))


def test_text_that_may_begin_a_stop_string_is_held_back_until_decided():
    finder = StopStrings(["\nUser:"])
    assert [finder.feed(piece) for piece in ("Hi\n", "Us", "ing ", "\nUser", ":", " no")] == [
        "Hi", "", "\nUsing ", "", "", "",
    ]  # fmt: skip
    assert finder.is_stopped


def test_a_stop_string_is_found_across_tokens(backend, vocabulary):
    ids = backend.encode("The river carries what it has read to the sea").ids
    assert stream(vocabulary, ids, stop=["carries what it"]) == "The river "
