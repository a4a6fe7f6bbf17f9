"""The model hub, through huggingface_hub: small files first, weights on request.

Only this file and `download` import that library's downloads and errors. Every failure becomes a
CheckpointError of one line that says what to do. Without a connection, a complete earlier download
is used. This module does not know what a checkpoint must contain.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm as _hub_tqdm  # type: ignore[attr-defined]

from falcon_mamba_app.checkpoint.download import HTTPError, cache_folder, download
from falcon_mamba_app.checkpoint.progress import OnProgress, unheard
from falcon_mamba_app.errors import CheckpointError

logger = logging.getLogger(__name__)

hub_tqdm: Any = _hub_tqdm  # the terminal's progress bar

SMALL_SUFFIXES = (".json", ".jinja", ".txt", ".model")
MAX_SMALL_BYTES = 64 * 2**20
GGUF_SUFFIX = ".gguf"
# Kept free beside the weights, for logs, lock files and the page's uploads.
SPARE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; its size is None if the hub does not report it."""

    name: str
    num_bytes: int | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, with its small files in `folder`.

    `files` is None when the hub could not be asked and an earlier download is used.
    """

    hub_id: str
    commit: str
    folder: Path
    files: tuple[RemoteFile, ...] | None

    @property
    def remote_names(self) -> frozenset[str]:
        return frozenset(file.name for file in self.files or ())


def fetch_small_files(hub_id: str, revision: str | None) -> Repository:
    """The repository's configuration and tokenizer in the local cache. Raises CheckpointError."""
    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        files = tuple(RemoteFile(file.rfilename, file.size) for file in info.siblings or ())
        # By its branch, so that the cache remembers the branch's commit for later offline starts.
        folder = _download(hub_id, revision, "config.json").parent
        for file in files:
            if _is_small(file):
                _download(hub_id, folder.name, file.name)
    except (OfflineModeIsEnabled, HTTPError, OSError, HFValidationError) as error:
        if _is_unreachable(error):
            cached = _cached(hub_id, revision)
            if cached is not None:
                logger.info("hub not reachable, using the earlier download of %s", hub_id)
                return cached
        raise _explain(error, hub_id, revision) from error
    return Repository(hub_id, folder.name, folder, files)


def fetch_gguf(
    hub_id: str, revision: str | None, kind: str, on_progress: OnProgress = unheard
) -> Path:
    """The repository's GGUF file whose name has `kind` in it ("Q4_K_M"; "" for the only one),
    downloaded whole: everything is said in its own head. Raises CheckpointError.
    """
    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        files = {file.rfilename: file.size for file in info.siblings or ()}
        name = _chosen_gguf(hub_id, list(files), kind)
        if not isinstance(try_to_load_from_cache(hub_id, name, revision=info.sha), str):
            file = RemoteFile(name, files[name])
            check_disk_space(hub_id, [file])
            _fetch(hub_id, info.sha, [file], on_progress)
        return _download(hub_id, info.sha, name)
    except (OfflineModeIsEnabled, HTTPError, OSError, HFValidationError) as error:
        if _is_unreachable(error) and (earlier := _cached_gguf(hub_id)):
            names = [path.name for path in earlier]
            path = earlier[names.index(_chosen_gguf(hub_id, names, kind))]
            logger.info("hub not reachable, using the earlier download of %s", path.name)
            return path
        raise _explain(error, hub_id, revision) from error


def _chosen_gguf(hub_id: str, names: Sequence[str], kind: str) -> str:
    files = sorted({name for name in names if name.endswith(GGUF_SUFFIX)})
    fitting = [name for name in files if kind.lower() in name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    if not files:
        raise CheckpointError(f"{hub_id} has no GGUF file")
    what = f"{len(fitting)} with {kind!r} in their names" if kind else f"{len(files)} GGUF files"
    listed = ", ".join((fitting or files)[:8])
    raise CheckpointError(
        f"{hub_id} has {what}: give `model` {hub_id}:KIND, where KIND is in the name of one of"
        f" {listed}"
    )


def _cached_gguf(hub_id: str) -> list[Path]:
    """Whole files of earlier downloads, one of each name."""
    paths = sorted((cache_folder(hub_id) / "snapshots").glob(f"*/*{GGUF_SUFFIX}"))
    found = {path.name: path for path in paths if path.is_file()}
    return list(found.values())


def missing_files(repository: Repository, names: Sequence[str]) -> tuple[RemoteFile, ...]:
    """Those of `names` that are not in the repository's folder yet.

    Raises CheckpointError where the hub cannot provide them.
    """
    sizes = {file.name: file for file in repository.files or ()}
    absent = [name for name in names if not (repository.folder / name).is_file()]
    lost = [name for name in absent if name not in sizes]
    if lost and repository.files is None:
        raise CheckpointError(
            f"{repository.hub_id} is only partly downloaded ({lost[0]} is missing) and the hub"
            " cannot be reached; connect, or give `model` a folder"
        )
    if lost:
        raise CheckpointError(f"{repository.hub_id} lacks {lost[0]}, which its index names")
    return tuple(sizes[name] for name in absent)


def check_disk_space(hub_id: str, missing: Sequence[RemoteFile]) -> None:
    """Raises CheckpointError if the missing files, and the space to keep free, do not fit."""
    num_bytes = sum(file.num_bytes or 0 for file in missing)
    if num_bytes == 0:
        return
    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes + SPARE_BYTES > free:
        raise CheckpointError(
            f"{hub_id} needs {num_bytes / 1e9:.1f} GB for its weights and {folder} has"
            f" {free / 1e9:.1f} GB free; free some, or set HF_HOME to a larger disk"
        )


def fetch_files(
    hub_id: str, commit: str | None, files: Sequence[RemoteFile], on_progress: OnProgress
) -> None:
    """Download `files` into the cache; reports progress from 0 to 1. Raises CheckpointError."""
    try:
        _fetch(hub_id, commit, files, on_progress)
    except (OfflineModeIsEnabled, HTTPError, OSError) as error:
        raise _explain(error, hub_id, commit) from error


def _fetch(
    hub_id: str, commit: str | None, files: Sequence[RemoteFile], on_progress: OnProgress
) -> None:
    """`fetch_files`, with the library's errors. The terminal shows a bar, too."""
    total = sum(file.num_bytes or 0 for file in files)
    done = 0
    with hub_tqdm(total=total or None, unit="B", unit_scale=True, desc=hub_id) as bar:
        for file in files:

            def tell(num_bytes: int, before: int = done) -> None:
                arrived = before + num_bytes
                bar.update(arrived - bar.n)
                what = f"downloading weights, {arrived / 1e9:.2f} of {total / 1e9:.2f} GB"
                on_progress(min(arrived / total, 1.0) if total else 0.0, what)

            download(hub_id, commit or constants.DEFAULT_REVISION, file.name, tell)
            _download(hub_id, commit, file.name)
            done += file.num_bytes or 0
            tell(0, done)


def _download(hub_id: str, commit: str | None, name: str, **options: Any) -> Path:
    return Path(hf_hub_download(hub_id, name, revision=commit, **options))


def _is_small(file: RemoteFile) -> bool:
    is_at_top = "/" not in file.name
    return (
        is_at_top
        and file.name.endswith(SMALL_SUFFIXES)
        and (file.num_bytes or 0) <= MAX_SMALL_BYTES
    )


def _cached(hub_id: str, revision: str | None) -> Repository | None:
    path = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    return Repository(hub_id, folder.name, folder, None)


def _is_unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer or failed itself: then an earlier download can replace it."""
    told = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, HFValidationError)
    # A broken connection also raises "entry not found", which then means: not in the cache.
    return isinstance(error, LocalEntryNotFoundError) or not isinstance(error, told)


def _explain(error: Exception, hub_id: str, revision: str | None) -> CheckpointError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{hub_id} is gated: accept its terms at {constants.ENDPOINT}/{hub_id}, then log in"
            " with `hf auth login`"
        )
    if isinstance(error, HFValidationError):
        return CheckpointError(f"`model` {hub_id!r} is neither a folder nor a hub id")
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{hub_id} has no revision {revision!r}; see its page for branches")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return CheckpointError(
            f"the hub has no model {hub_id!r}, or it is private, and there is no folder of that"
            " name; check the name, or log in with `hf auth login`"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return CheckpointError(f"{hub_id} is no checkpoint of transformers: {_one_line(error)}")
    if status is not None:
        return CheckpointError(f"the hub answered {status} for {hub_id}; try again later")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.errno:
        return CheckpointError(f"{hub_id} cannot be stored: {_one_line(error)}")
    return CheckpointError(
        f"the hub cannot be reached ({type(error).__name__}) and {hub_id} is not in the local"
        " cache; connect, use `model` nano, or give `model` a folder"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
