"""The tokenizer in a GGUF file as a tokenizer.json and a tokenizer_config.json.

A file names its way of splitting a text before the merges only by a word. For the words of the
models that this app runs, the splitting is known here. A whole tokenizer.json in the metadata
(`tokenizer.huggingface.json`), or beside the file, is taken as it is.
"""

from __future__ import annotations

import json
from typing import Any, TypeGuard

from falcon_mamba_app.checkpoint.gguf.header import Header
from falcon_mamba_app.errors import CheckpointError

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # token types
WHOLE_KEY = "tokenizer.huggingface.json"
Json = dict[str, Any]


def _byte_level(*, use_regex: bool) -> Json:
    return {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
        "use_regex": use_regex,
    }  # fmt: skip


def _split(pattern: str) -> Json:
    return {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip


GPT_2 = _byte_level(use_regex=True)
# tiiuae/falcon-7b's own: punctuation in one piece, then GPT-2's, then digits by threes.
FALCON = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Punctuation", "behavior": "Contiguous"},
        GPT_2,
        {"type": "Digits", "individual_digits": False},
        _split("[0-9][0-9][0-9]"),
    ],
}
# meta-llama/Meta-Llama-3-8B's, which Falcon3 has too.
LLAMA_3 = {
    "type": "Sequence",
    "pretokenizers": [
        _split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        _byte_level(use_regex=False),
    ],
}
SPLITTING: dict[str, Json] = {
    "gpt-2": GPT_2, "olmo": GPT_2, "mpt": GPT_2, "falcon": FALCON, "falcon3": LLAMA_3,
    "llama-bpe": LLAMA_3,
}  # fmt: skip
IGNORING_MERGES = ("falcon3", "llama-bpe")  # a word that is a token is not put together


def tokenizer_json(header: Header) -> str:
    """The text of tokenizer.json. Raises CheckpointError where it cannot be made."""
    said, name = header.metadata, header.path.name
    whole = said.get(WHOLE_KEY)
    if isinstance(whole, str):
        return whole
    kind, splitting = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre", "default")
    beside = header.path.with_name("tokenizer.json")
    if kind != "gpt2" or splitting not in SPLITTING:
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        raise CheckpointError(
            f"the tokenizer in {name} ({kind!r}, split as {splitting!r}) is none that this app"
            f" knows ({', '.join(SPLITTING)}); put the model's tokenizer.json beside the file"
        )
    tokens, merges = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.merges")
    kinds = said.get("tokenizer.ggml.token_type")
    if not _are_texts(tokens) or not _are_texts(merges) or not isinstance(kinds, list):
        raise CheckpointError(f"{name} lacks its tokens, merges or token types; download it again")
    if len(kinds) != len(tokens):
        raise CheckpointError(f"{name} has {len(tokens)} tokens and {len(kinds)} token types")
    made = _made(tokens, merges, kinds, splitting)
    return json.dumps(made, ensure_ascii=False)


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _made(tokens: list[str], merges: list[str], kinds: list[int], splitting: str) -> Json:
    added = [
        {
            "id": token_id, "content": token, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": kind == CONTROL,
        }
        for token_id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    vocabulary = {token: i for i, token in enumerate(tokens) if kinds[i] != UNUSED}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": SPLITTING[splitting], "post_processor": None,
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": splitting in IGNORING_MERGES, "vocab": vocabulary,
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }  # fmt: skip


def tokenizer_config(header: Header) -> Json:
    """The fields of tokenizer_config.json: special tokens and the chat template."""
    said = header.metadata
    tokens = said.get("tokenizer.ggml.tokens")
    values: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
    }
    for field, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        token_id = said.get(f"tokenizer.ggml.{key}_token_id")
        if _are_texts(tokens) and isinstance(token_id, int) and 0 <= token_id < len(tokens):
            values[field] = tokens[token_id]
    template = said.get("tokenizer.chat_template")
    if isinstance(template, str):
        values["chat_template"] = template
    return values
