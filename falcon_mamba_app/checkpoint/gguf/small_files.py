"""The small files of a checkpoint, made from a GGUF file's metadata and kept in the user's cache.

The folder is named by what it is made from, so another file of the same name gets another folder,
and a start finds what an earlier one made.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from falcon_mamba_app.checkpoint.gguf.config import config_json
from falcon_mamba_app.checkpoint.gguf.header import Header
from falcon_mamba_app.checkpoint.gguf.tokenizer import tokenizer_config, tokenizer_json
from falcon_mamba_app.errors import CheckpointError

FOLDER = "falcon-mamba-app/gguf"


def folder_of(header: Header) -> Path:
    """A folder with config.json, tokenizer.json and tokenizer_config.json of the file.

    Raises CheckpointError.
    """
    texts = {
        "config.json": json.dumps(config_json(header), indent=1),
        "tokenizer.json": tokenizer_json(header),
        "tokenizer_config.json": json.dumps(tokenizer_config(header), ensure_ascii=False),
    }
    name = hashlib.blake2b(json.dumps(texts).encode(), digest_size=12).hexdigest()
    for cache in _caches():
        try:
            return _written(cache / FOLDER / name, texts)
        except OSError as error:
            fault = error
    raise CheckpointError(f"the tokenizer of {header.path.name} cannot be kept: {fault}")


def _caches() -> tuple[Path, Path]:
    """The user's cache, and where that cannot be written the folder of temporary files."""
    own = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path.home() / ".cache", Path(tempfile.gettempdir())


def _written(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, delete=False, encoding="utf-8"
        ) as partial:
            partial.write(text)
        os.replace(partial.name, path)
    return folder
