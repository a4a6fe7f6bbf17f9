"""Small files with wrong types, absurd values, odd nesting: one line that names file and field."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path

import pytest

from falcon_mamba_app.checkpoint.generation import NOT_FOLLOWED, load_generation_defaults
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_tokenizer
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint

DEEP = "[" * 100_000
FILES = ["config.json", "generation_config.json", "tokenizer_config.json"]
FILES += ["special_tokens_map.json", "model.safetensors.index.json"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("source"), max_shard_size="40KB")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    return folder


@pytest.fixture
def folder(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "tiny"))


def read(folder: Path):
    """What is read of a checkpoint before its weights."""
    checkpoint = locate(ModelSettings(model=str(folder)), has_cuda=False)
    return load_generation_defaults(checkpoint, load_tokenizer(checkpoint))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "text", ["[]", "{", "", "null", "7", '"x"', "\ufeff{}", DEEP], ids=range(8)
)
def test_a_file_that_is_no_object_is_named(folder, file, text):
    (folder / file).write_text(text)
    assert file in refusal(folder)


def test_a_number_of_five_thousand_digits_is_refused(folder):
    (folder / "config.json").write_text('{"hidden_size": 1' + "0" * 5_000 + "}")
    assert "config.json cannot be read" in refusal(folder)


def test_a_file_in_another_encoding_is_named(folder):
    (folder / "config.json").write_text("{}", encoding="utf-16")
    assert "config.json cannot be read" in refusal(folder)


WRONG = [
    ("config.json", "hidden_size", "32"),
    ("config.json", "hidden_size", 1e400),
    ("config.json", "num_hidden_layers", 10**9),
    ("config.json", "vocab_size", 2**40),
    ("config.json", "state_size", [8]),
    ("config.json", "expand", float("nan")),
    ("config.json", "expand", float("inf")),
    ("config.json", "layer_norm_epsilon", "small"),
    ("config.json", "tie_word_embeddings", "no"),
    ("config.json", "quantization_config", [4]),
    ("generation_config.json", "eos_token_id", [[2]]),
    ("generation_config.json", "eos_token_id", "2"),
    ("generation_config.json", "eos_token_id", -1),
    ("generation_config.json", "eos_token_id", {"id": 2}),
    ("generation_config.json", "eos_token_id", True),
    ("generation_config.json", "do_sample", "yes"),
    ("generation_config.json", "temperature", "hot"),
    ("generation_config.json", "temperature", [1.0]),
    ("generation_config.json", "repetition_penalty", float("nan")),
    ("tokenizer_config.json", "eos_token", 7),
    ("tokenizer_config.json", "eos_token", {"text": "x"}),
    ("tokenizer_config.json", "chat_template", 7),
    ("tokenizer_config.json", "chat_template", [{"name": "rag"}]),
    ("tokenizer_config.json", "added_tokens_decoder", {"no id": {"content": "x"}}),
    ("tokenizer_config.json", "added_tokens_decoder", [1]),
    ("tokenizer_config.json", "model_max_length", "long"),
    ("tokenizer_config.json", "add_prefix_space", "no"),
    ("special_tokens_map.json", "eos_token", ["<|im_end|>"]),
    ("model.safetensors.index.json", "weight_map", ["model.safetensors"]),
    ("model.safetensors.index.json", "weight_map", {"a": {"b": "c"}}),
    ("model.safetensors.index.json", "weight_map", {"a": "../../outside.safetensors"}),
]


@pytest.mark.parametrize("file,field,value", WRONG)
def test_a_field_of_another_kind_is_named_with_its_file(folder, file, field, value):
    edit(folder / file, **{field: value})
    message = refusal(folder)
    assert file in message or field == "quantization_config", message
    assert field in message or field == "quantization_config", message


def test_a_field_that_is_there_twice_is_named_unless_both_say_the_same(folder):
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": 2, "eos_token_id": 2}')
    read(folder)
    path.write_text('{"eos_token_id": 2, "eos_token_id": 3}')
    assert "generation_config.json holds 'eos_token_id' twice" in refusal(folder)


ODD = [None, True, 0, -1, 2**70, 1e308, float("nan"), float("inf"), "", "x", [], [[]], {}, {"a": 1}]
ODD += [[2, "x"], {"content": 7}, "\ud83d", "a" * 10_000, {"0": None}]


@pytest.mark.parametrize("file", [*FILES, "tokenizer.json"])
def test_whatever_stands_in_a_field_the_files_are_read_or_refused_in_one_line(folder, file):
    """Never another exception, whatever transformers makes of what we do not know."""
    rng, original = random.Random(file), json.loads((folder / file).read_text())
    refused = 0
    for _ in range(24):
        values = dict(original)
        values[rng.choice([*original, "eos_token_id", "eos_token"])] = rng.choice(ODD)
        (folder / file).write_text(json.dumps(values))
        try:
            read(folder)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600
            assert file in str(error) or "config.json" in str(error), error
    assert refused


def test_settings_of_generation_that_are_not_followed_are_named_in_one_line(folder, caplog):
    asked = {"suppress_tokens": [5], "bad_words_ids": [[7]], "min_new_tokens": 4}
    edit(folder / "generation_config.json", **asked, no_repeat_ngram_size=3, num_beams=1)
    with caplog.at_level(logging.WARNING):
        read(folder)
    assert caplog.messages == [
        "tiny: generation_config.json asks for bad_words_ids, min_new_tokens,"
        " no_repeat_ngram_size, suppress_tokens, which this app does not follow"
    ]


def test_settings_that_change_nothing_are_not_named(folder, caplog):
    neutral = {key: values[0] if values else None for key, values in NOT_FOLLOWED.items()}
    edit(folder / "generation_config.json", **neutral)
    with caplog.at_level(logging.WARNING):
        read(folder)
    assert not caplog.messages


def test_settings_are_looked_for_in_config_json_where_there_is_no_other_file(folder, caplog):
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", repetition_penalty=1.3, no_repeat_ngram_size=3)
    with caplog.at_level(logging.WARNING):
        assert read(folder).sampling.repetition_penalty == 1.3
    assert "config.json asks for no_repeat_ngram_size" in caplog.text


def test_a_repetition_penalty_is_followed_with_and_without_sampling(folder):
    for do_sample in (True, False):
        edit(folder / "generation_config.json", do_sample=do_sample, repetition_penalty=1.2)
        assert read(folder).sampling.repetition_penalty == 1.2
