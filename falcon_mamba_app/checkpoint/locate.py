"""Finds the checkpoint of a name, and checks that this app can run it.

`locate` runs before anything else starts. It reads only the small files (and fetches them from the
hub). It refuses in one line everything that could not be loaded later: the wrong architecture, a
missing shard, a full disk. It loads no weights and knows no tensors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.checkpoint import hub
from falcon_mamba_app.checkpoint.asked import AskedModel
from falcon_mamba_app.checkpoint.gguf.header import read_header
from falcon_mamba_app.checkpoint.gguf.small_files import folder_of
from falcon_mamba_app.checkpoint.gguf.tensors import check_tensors
from falcon_mamba_app.checkpoint.progress import OnProgress, unheard
from falcon_mamba_app.checkpoint.quantization import Quantization, stored_quantization
from falcon_mamba_app.checkpoint.small_files import check_tokenizer_files, read_object
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.config import FAMILIES, ModelConfig

AUTO = "auto"  # the machine decides
BUNDLED = "nano"
BUNDLED_FOLDER = ASSETS / BUNDLED
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
GGUF_SUFFIX = hub.GGUF_SUFFIX


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published checkpoint by its short name."""

    name: str
    hub_id: str
    trained_context_tokens: int


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel("falcon-mamba-7b", "tiiuae/falcon-mamba-7b", 8_192),
        KnownModel("falcon-mamba-7b-instruct", "tiiuae/falcon-mamba-7b-instruct", 8_192),
        KnownModel("falcon-mamba-7b-4bit", "tiiuae/falcon-mamba-7b-4bit", 8_192),
        KnownModel("falcon-mamba-7b-instruct-4bit", "tiiuae/falcon-mamba-7b-instruct-4bit", 8_192),
        KnownModel("falcon-mamba-7b-q4_k_m", "tiiuae/falcon-mamba-7b-Q4_K_M-GGUF", 8_192),
        KnownModel(
            "falcon-mamba-7b-instruct-q4_k_m",
            "tiiuae/falcon-mamba-7b-instruct-Q4_K_M-GGUF",
            8_192,
        ),
        KnownModel(
            "falcon-mamba-7b-instruct-q8_0", "tiiuae/falcon-mamba-7b-instruct-Q8_0-GGUF", 8_192
        ),
        KnownModel("falcon3-mamba-7b-base", "tiiuae/Falcon3-Mamba-7B-Base", 32_768),
        KnownModel("falcon3-mamba-7b-instruct", "tiiuae/Falcon3-Mamba-7B-Instruct", 32_768),
        KnownModel("mamba-130m", "state-spaces/mamba-130m-hf", 2_048),
        KnownModel("mamba-370m", "state-spaces/mamba-370m-hf", 2_048),
        KnownModel("mamba-790m", "state-spaces/mamba-790m-hf", 2_048),
        KnownModel("mamba-1.4b", "state-spaces/mamba-1.4b-hf", 2_048),
        KnownModel("mamba-2.8b", "state-spaces/mamba-2.8b-hf", 2_048),
    )
}
BUNDLED_CONTEXT_TOKENS = 4_096
DEFAULT_ON_GPU = "falcon-mamba-7b-instruct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model that this app can run. Its small files are in `folder`, and its weights too, except
    for the `missing_weights`, which loading fetches from the hub.
    """

    id: str  # for people and /v1/models: the short name, the hub id or the folder's name
    folder: Path
    config: ModelConfig
    weight_files: tuple[str, ...]
    has_chat_template: bool
    is_bundled: bool = False
    hub_id: str | None = None
    commit: str | None = None
    missing_weights: tuple[hub.RemoteFile, ...] = ()
    trained_context_tokens: int | None = None
    quantization: Quantization | None = None  # of the files
    gguf: Path | None = None  # the one file that holds everything

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its other names: the short one, the hub's and the folder's."""
        names = [known.name for known in KNOWN_MODELS.values() if known.hub_id == self.hub_id]
        names += [self.hub_id or "", self.id.rpartition("/")[2]]
        names += [] if self.hub_id or self.gguf else [self.folder.name]
        return tuple(dict.fromkeys(name for name in names if name and name != self.id))


def resolve(model: str, *, has_cuda: bool) -> str:
    """The requested model as a hub id or a path. Raises CheckpointError for a single word
    that is no known name.
    """
    if model == AUTO:
        model = DEFAULT_ON_GPU if has_cuda else BUNDLED
    if model == BUNDLED:
        return str(BUNDLED_FOLDER)
    known = KNOWN_MODELS.get(model.lower())
    if known:
        return known.hub_id
    if _is_path(model):
        return str(Path(model).expanduser())
    if model.count("/") != 1:
        names = ", ".join((AUTO, BUNDLED, *KNOWN_MODELS))
        raise CheckpointError(
            f"`model` {model!r} is neither a folder nor a known name; allowed are {names},"
            " a hub id such as tiiuae/falcon-mamba-7b, a folder, or a .gguf file"
        )
    return model


def _is_path(model: str) -> bool:
    path = Path(model).expanduser()
    is_there = path.is_dir() or (path.suffix == GGUF_SUFFIX and path.is_file())
    return is_there or model.startswith((".", "/", "~", os.sep))


def locate(asked: AskedModel, *, has_cuda: bool, on_progress: OnProgress = unheard) -> Checkpoint:
    """The requested checkpoint, with its small files in place and checked. A GGUF file of the hub
    has no small files: it is downloaded whole.

    Raises CheckpointError with one line that says what to do.
    """
    target = resolve(asked.model, has_cuda=has_cuda)
    if _is_path(target):
        path = Path(target)
        return _locate_gguf(path) if path.suffix == GGUF_SUFFIX else _locate_folder(path)
    hub_id, _, kind = target.partition(":")
    if kind or "gguf" in hub_id.lower():
        path = hub.fetch_gguf(hub_id, asked.revision, kind, on_progress)
        return _locate_gguf(path, hub_id=hub_id)
    return _locate_on_hub(target, asked.revision)


def _locate_gguf(path: Path, *, hub_id: str | None = None) -> Checkpoint:
    """The model in one file: its small files are made from the metadata."""
    if not path.is_file():
        raise CheckpointError(f"`model` {path}: there is no such file")
    header = read_header(path)
    folder = folder_of(header)
    config, _ = _read_config(folder, path.name)
    check_tensors(header, config)
    contexts = {known.hub_id: known.trained_context_tokens for known in KNOWN_MODELS.values()}
    return Checkpoint(
        id=hub_id or path.stem,
        folder=folder,
        config=config,
        weight_files=(path.name,),
        has_chat_template=_has_chat_template(folder, path.name),
        hub_id=hub_id,
        trained_context_tokens=contexts.get(hub_id or ""),
        gguf=path,
    )


def _locate_folder(folder: Path) -> Checkpoint:
    is_bundled = folder == BUNDLED_FOLDER
    name = BUNDLED if is_bundled else folder.resolve().name
    if not folder.is_dir():
        raise CheckpointError(f"`model` {folder}: there is no such folder")
    if not (folder / "config.json").is_file() and (files := sorted(folder.glob("*.gguf"))):
        return _locate_gguf(_the_only(files))
    config, quantization = _read_config(folder, str(folder))
    weight_files = _weight_files(folder, str(folder))
    absent = [file for file in weight_files if not (folder / file).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder} lacks {len(absent)} of its {len(weight_files)} weight files,"
            f" {absent[0]} first; download or copy the checkpoint again"
        )
    return Checkpoint(
        id=name,
        folder=folder,
        config=config,
        weight_files=weight_files,
        has_chat_template=_has_chat_template(folder, str(folder)),
        is_bundled=is_bundled,
        trained_context_tokens=BUNDLED_CONTEXT_TOKENS if is_bundled else None,
        quantization=quantization,
    )


def _the_only(files: list[Path]) -> Path:
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:8])
        raise CheckpointError(
            f"{files[0].parent} holds {len(files)} models: give `model` one of {names}"
        )
    return files[0]


def _locate_on_hub(hub_id: str, revision: str | None) -> Checkpoint:
    repository = hub.fetch_small_files(hub_id, revision)
    config, quantization = _read_config(repository.folder, hub_id)
    weight_files = _weight_files(repository.folder, hub_id, remote=repository.remote_names)
    missing = hub.missing_files(repository, weight_files)
    hub.check_disk_space(hub_id, missing)
    contexts = {known.hub_id: known.trained_context_tokens for known in KNOWN_MODELS.values()}
    return Checkpoint(
        id=hub_id,
        folder=repository.folder,
        config=config,
        weight_files=weight_files,
        has_chat_template=_has_chat_template(repository.folder, hub_id),
        hub_id=hub_id,
        commit=repository.commit,
        missing_weights=missing,
        trained_context_tokens=contexts.get(hub_id),
        quantization=quantization,
    )


def _read_config(folder: Path, name: str) -> tuple[ModelConfig, Quantization | None]:
    raw = read_object(folder / "config.json", name)
    _refuse_foreign(raw, name)
    quantization = stored_quantization(raw.get("quantization_config"), name)
    try:
        return ModelConfig.from_json(raw), quantization
    except CheckpointError as error:
        raise CheckpointError(f"{name}: config.json is not valid: {error}") from error


def _refuse_foreign(raw: dict[str, Any], name: str) -> None:
    architectures = raw.get("architectures")
    if not architectures and "d_model" in raw and "n_layer" in raw:
        hint = f"use {name}-hf" if name.startswith("state-spaces/") else "use its -hf version"
        raise CheckpointError(
            f"{name} is in the format of the mamba_ssm package, not of transformers; {hint}"
        )
    if not isinstance(architectures, list) or not architectures:
        architectures = [raw.get("model_type")]
    architecture = architectures[0]
    if architecture not in (*FAMILIES, *FAMILIES.values()):
        is_named = isinstance(architecture, str) and architecture
        what = f"is a {architecture}" if is_named else "names no architecture in config.json"
        raise CheckpointError(f"{name} {what}; this app runs Mamba-1 models: {', '.join(FAMILIES)}")


def _weight_files(
    folder: Path, name: str, *, remote: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """The names of the safetensors files that hold the weights, present or not."""
    if (folder / INDEX_FILE).is_file():
        weight_map = read_object(folder / INDEX_FILE, name).get("weight_map")
        names = weight_map.values() if isinstance(weight_map, dict) else ()
        if not names or not all(map(_is_file_name, names)):
            raise CheckpointError(
                f"{name}: {INDEX_FILE}: weight_map is no object of the names of files beside it;"
                " download it again"
            )
        return tuple(sorted(set(names)))
    if (folder / SINGLE_FILE).is_file() or SINGLE_FILE in remote:
        return (SINGLE_FILE,)
    raise CheckpointError(
        f"{name} has no safetensors weights ({SINGLE_FILE} or {INDEX_FILE});"
        " convert it with transformers' save_pretrained"
    )


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and Path(value).name == value


def _has_chat_template(folder: Path, name: str) -> bool:
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{name} has no tokenizer.json; add the tokenizer it was trained with"
        )
    config = check_tokenizer_files(folder, name)
    if (folder / "chat_template.jinja").is_file():
        return True
    return bool(config.get("chat_template"))
