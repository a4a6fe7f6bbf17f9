"""The tokenizer as a service of its own: texts and conversations to ids, and ids to text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from falcon_mamba_app.protocol import Prompt
from falcon_mamba_app.text.chat import PromptEncoder

# Fields of tokenizer_config.json from which programs learn how to address the model.
TOLD = ("tokenizer_class", "bos_token", "eos_token", "pad_token", "unk_token", "model_max_length")


class Tokens:
    """Implements Tokenizer over a checkpoint's small files."""

    def __init__(self, encoder: PromptEncoder, folder: Path, *, max_tokens: int) -> None:
        self._encoder, self._folder, self._max_tokens = encoder, folder, max_tokens

    def encode(self, prompt: Prompt) -> list[int]:
        """The ids that a request with this prompt has. Raises InvalidRequest, PromptTooLong."""
        self._encoder.refuse_characters(prompt, max_tokens=self._max_tokens)
        return list(self._encoder.encode(prompt, max_tokens=self._max_tokens))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of all bytes, markup included. Raises InvalidRequest for an unknown id."""
        known = self._encoder.check_ids(token_ids) if token_ids else []
        data = b"".join(map(self._encoder.vocabulary.token_bytes, known))
        return data.decode("utf-8", "replace")

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each id's own text."""
        return [self._encoder.vocabulary.token_text(token_id) for token_id in token_ids]

    def describe(self) -> dict[str, Any]:
        """The tokenizer's fields that programs read: its special tokens and its chat template."""
        config = _json_object(self._folder / "tokenizer_config.json")
        told = {name: _text_of(config.get(name)) for name in TOLD}
        template = self._folder / "chat_template.jinja"
        told["chat_template"] = (
            template.read_text(encoding="utf-8")
            if template.is_file()
            else config.get("chat_template")
        )
        return told


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text_of(value: Any) -> Any:
    """A token is a text, or an object that holds it."""
    return value.get("content") if isinstance(value, dict) else value
