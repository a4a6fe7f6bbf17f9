"""One large file of the hub, into huggingface_hub's own cache, in as many starts as it takes.

huggingface_hub begins a file again after the process has ended (since version 2.4). Here what has
arrived stays beside the cache's files, and the next start asks for the rest. The bytes are checked
against the hash that the hub gives. `hub` puts the library's errors into words.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HTTPError as _HTTPError  # type: ignore[attr-defined]
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from falcon_mamba_app.errors import CheckpointError

logger = logging.getLogger(__name__)

# The base of httpx's errors, and of httpx2's from huggingface_hub 2 on.
HTTPError: type[Exception] = _HTTPError
OnBytes = Callable[[int], None]
MAX_TRIES = 5  # in a row in which nothing arrived
PAUSE_S = 1.0
PIECE_BYTES = 2**20
SHA256 = re.compile(r"[0-9a-f]{64}")


def download(hub_id: str, commit: str, name: str, on_bytes: OnBytes) -> None:
    """Have the file among the cache's, from where `hf_hub_download` takes it; `on_bytes` gets the
    number of its bytes that are here. Another process that loads the same file is waited for.

    Raises CheckpointError for a damaged file, OSError, and the library's errors.
    """
    url = hf_hub_url(hub_id, name, revision=commit)
    found = get_hf_file_metadata(url)
    if found.etag is None or Path(found.etag).name != found.etag:
        return  # a hub that does not say what it sends: the library knows what to do
    folder = cache_folder(hub_id)
    blob = folder / "blobs" / found.etag
    lock = folder.parent / ".locks" / folder.name / f"{found.etag}.part.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file():
            return
        part = blob.with_name(f"{found.etag}.part")
        _fill(part, url, found.size, on_bytes)
        if SHA256.fullmatch(found.etag) and _sha256(part) != found.etag:
            part.unlink()
            raise CheckpointError(
                f"{name} of {hub_id} arrived damaged and was deleted; start again to download it"
            )
        os.replace(part, blob)


def cache_folder(hub_id: str) -> Path:
    """Where huggingface_hub keeps what it has of the repository."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")


def _fill(part: Path, url: str, num_bytes: int | None, on_bytes: OnBytes) -> None:
    """Append to the file until it is whole. A connection that breaks is made again."""
    have = part.stat().st_size if part.is_file() else 0
    if num_bytes is not None and have > num_bytes:
        part.unlink()
        have = 0
    if have:
        logger.info("going on with a download of which %.2f GB are here", have / 1e9)
    tries = 0
    while num_bytes is None or have < num_bytes:
        try:
            have = _append(part, have, url, on_bytes)
            if num_bytes is None or have == num_bytes:
                return
            raise HTTPError(f"the hub closed the connection after {have} of {num_bytes}")
        except HTTPError as error:
            if getattr(error, "response", None) is not None:
                raise  # an answer, and not for want of a connection
            before, have = have, part.stat().st_size if part.is_file() else 0
            tries = 1 if have > before else tries + 1
            if tries >= MAX_TRIES:
                raise
            time.sleep(PAUSE_S)


def _append(part: Path, have: int, url: str, on_bytes: OnBytes) -> int:
    """What one connection brings; the number of bytes that are here then."""
    headers = build_hf_headers()
    if have:
        headers["Range"] = f"bytes={have}-"
    options: dict[str, Any] = {
        "headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT, "follow_redirects": True
    }  # fmt: skip
    with get_session().stream("GET", url, **options) as answer:
        hf_raise_for_status(answer)
        if have and answer.status_code != 206:
            have = 0  # the whole file comes again
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            for piece in answer.iter_bytes(PIECE_BYTES):
                file.write(piece)
                have += len(piece)
                on_bytes(have)
    return have


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
