"""Byte-level tokenizers of the kinds that published checkpoints come with, and of stranger ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from falcon_mamba_app.text.borders import WORD_PATTERNS
from tests.support.checkpoints import CHATML, CORPUS, SPECIAL_TOKENS

BY_GPT2, *BY_OTHERS = sorted(WORD_PATTERNS, key=len)


def byte_level(*, prefix: bool = False, by_words: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=by_words)


def by_pattern(pattern: str, behavior: str = "isolated") -> Any:
    from tokenizers import Regex

    return pre_tokenizers.Split(Regex(pattern), behavior)


def make(
    pre_tokenizer: Any = None,
    *,
    normalizer: Any = None,
    added: tuple[str | AddedToken, ...] = (),
    ends: bool = False,
    model: dict[str, Any] | None = None,
    template: str | None = CHATML,
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizer or byte_level()
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=[
            AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*CORPUS, "a  b   c    d\n\n  e\n    f 12345 67"], trainer)
    if ends:
        backend.post_processor = TemplateProcessing(
            single="<|endoftext|> $A <|im_end|>",
            special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)],
        )
    backend.add_tokens(list(added))
    if model is not None:
        state = json.loads(backend.to_str())
        state["model"].update(model)
        backend = Tokenizer.from_str(json.dumps(state))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def falcon() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            byte_level(),
            pre_tokenizers.Digits(individual_digits=False),
            by_pattern("[0-9][0-9][0-9]"),
        ]
    )


def llama() -> Any:
    return pre_tokenizers.Sequence([by_pattern(BY_OTHERS[-1]), byte_level(by_words=False)])


def words_that_look_back() -> Any:
    return pre_tokenizers.Sequence([by_pattern(r"(?<=river) \p{L}+|New York"), byte_level()])


def whole_words() -> PreTrainedTokenizerFast:
    """Knows whole texts, control tokens among them, whatever is written around them."""
    backend = Tokenizer(WordLevel({"<|pad|>": 0, "a": 1, "<|im_end|>": 2, "<|im_start|>": 3}, "a"))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|pad|>", "<|im_end|>", "<|im_start|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
    )
    return tokenizer


SPACES = ("  ", "    ", "\n\n")

# Whose texts can be cut, and whose are read whole.
WITH_BORDERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt-2": make,
    "prefix space": lambda: make(byte_level(prefix=True)),
    "appended end": lambda: make(ends=True),
    "prefix space, appended end": lambda: make(byte_level(prefix=True), ends=True),
    "nfc": lambda: make(normalizer=normalizers.NFC()),
    "nfkc, lower": lambda: make(
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    ),
    "digits": lambda: make(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level()])),
    "falcon": lambda: make(falcon()),
    "llama": lambda: make(llama()),
    "words in a split": lambda: make(
        pre_tokenizers.Sequence([by_pattern(BY_GPT2), byte_level(by_words=False)])
    ),
    "runs of spaces": lambda: make(added=SPACES),
    "swallowed spaces": lambda: make(
        added=(AddedToken("<|x|>", lstrip=True, rstrip=True), AddedToken("</s>", rstrip=True))
    ),
    "added words": lambda: make(added=("foo_bar", AddedToken(" river", single_word=False))),
    "normalised markup": lambda: make(
        normalizer=normalizers.Lowercase(), added=(AddedToken("<|User|>", normalized=True),)
    ),
    "ignores merges": lambda: make(model={"ignore_merges": True}),
    "drops merges": lambda: make(model={"dropout": 0.5}),
}
READ_WHOLE: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "no words": lambda: make(byte_level(by_words=False)),
    "no words, prefix": lambda: make(byte_level(prefix=True, by_words=False), ends=True),
    "looks back": lambda: make(words_that_look_back()),
    "strips": lambda: make(normalizer=normalizers.Strip()),
    "prepends": lambda: make(normalizer=normalizers.Prepend("_")),
    "replaces": lambda: make(normalizer=normalizers.Replace("t s", "x")),
    "metaspace": lambda: make(pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), byte_level()])),
    "markup of words": lambda: make(added=("<start of turn>",)),
    "swallows after a word": lambda: make(added=(AddedToken("river", rstrip=True),)),
    "single words": lambda: make(added=(AddedToken(" the", single_word=True),)),
}
