"""Reads the JSON files beside the weights, and checks the types of their fields.

Any fault in them is reported in one line that names the file and the field, because people edit
these files. Fields that are unknown here are not checked; other readers may use them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from falcon_mamba_app.errors import CheckpointError

# A field's name, the allowed values in words, and the test of a value. None is always allowed.
Check = tuple[str, Callable[[Any], bool]]


def read_object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the checkpoint `name`. Raises CheckpointError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values and values[key] != value:
                raise CheckpointError(
                    f"{name}: {path.name} holds {_short(key)} twice, with different values;"
                    " leave one"
                )
            values[key] = value
        return values

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except FileNotFoundError:
        raise CheckpointError(f"{name} is no checkpoint: it has no {path.name}") from None
    except RecursionError:
        raise CheckpointError(f"{name}: {path.name} is nested too deeply to be read") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name}: {path.name} cannot be read: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: {path.name} is no JSON object; download it again")
    return value


def check_fields(
    values: Mapping[str, Any], checks: Mapping[str, Check], *, file: str, name: str
) -> None:
    """Raises CheckpointError for the first field with a wrong value."""
    for key, (allowed, is_allowed) in checks.items():
        value = values.get(key)
        if value is not None and not is_allowed(value):
            raise CheckpointError(f"{name}: {file}: {key} is {_short(value)}; allowed is {allowed}")


def is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_token(value: Any) -> bool:
    """Whether it is a token as tokenizer files write it: a text, or an object with `content`."""
    return isinstance(value, str) or (
        isinstance(value, dict) and isinstance(value.get("content"), str)
    )


ID: Check = ("a token id", is_id)
IDS: Check = (
    "a token id or a list of them",
    lambda value: is_id(value) or (isinstance(value, list) and all(map(is_id, value))),
)
SWITCH: Check = ("true or false", lambda value: isinstance(value, bool))
NUMBER: Check = ("a number", is_number)
TOKEN: Check = ("a token's text", is_token)
TEMPLATE: Check = (
    "a template, or a list of objects with name and template",
    lambda value: (
        isinstance(value, str)
        or (
            isinstance(value, list)
            and all(
                isinstance(one, dict)
                and isinstance(one.get("name"), str)
                and isinstance(one.get("template"), str)
                for one in value
            )
        )
    ),
)
TEXTS: Check = (
    "a text or a list of texts",
    lambda value: (
        isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(one, str) for one in value))
    ),
)
ADDED_TOKENS: Check = (
    "an object of token ids, each with its content",
    lambda value: (
        isinstance(value, dict)
        and all(
            key.isdecimal() and len(key) < 10 and isinstance(one, dict) and is_token(one)
            for key, one in value.items()
        )
    ),
)
SPECIAL_TOKENS = {
    f"{kind}_token": TOKEN for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
}
TOKENIZER_FIELDS: dict[str, Check] = {
    **SPECIAL_TOKENS,
    "added_tokens_decoder": ADDED_TOKENS,
    "chat_template": TEMPLATE,
    "tokenizer_class": ("a text", lambda value: isinstance(value, str)),
    "model_max_length": NUMBER,
    "model_input_names": TEXTS,
    **{
        key: SWITCH
        for key in (
            "add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces",
        )
    },
}  # fmt: skip


def check_tokenizer_files(folder: Path, name: str) -> dict[str, Any]:
    """Check the tokenizer's files and return tokenizer_config.json, if there is one. Raises
    CheckpointError.
    """
    config: dict[str, Any] = {}
    files = {"special_tokens_map.json": SPECIAL_TOKENS, "tokenizer_config.json": TOKENIZER_FIELDS}
    for file, checks in files.items():
        if (folder / file).is_file():
            config = read_object(folder / file, name)
            check_fields(config, checks, file=file, name=name)
    if (folder / "added_tokens.json").is_file():
        for token, token_id in read_object(folder / "added_tokens.json", name).items():
            check_fields({token: token_id}, {token: ID}, file="added_tokens.json", name=name)
    return config if (folder / "tokenizer_config.json").is_file() else {}


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
