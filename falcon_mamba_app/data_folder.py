"""The folder of what outlives the process, and the secret that is kept in it."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import platformdirs

logger = logging.getLogger(__name__)

SECRET = "session-secret"
AUTO = "auto"


def data_folder(given: str) -> Path:
    """The folder that was given, or for "auto" the system's for data of programs; made by whoever
    writes to it.
    """
    if given != AUTO:
        return Path(given).expanduser().absolute()
    return platformdirs.user_data_path("falcon-mamba-app", appauthor=False)


def kept_secret(folder: Path) -> str | None:
    """The secret in the folder, made at the first call; None where the folder cannot be used.

    The ids of API sessions are made from it, so that a restart finds their states.
    """
    path = folder / SECRET
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path, secrets.token_urlsafe(32))
        return path.read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        logger.warning(
            "no secret can be kept in %s (%s): after a restart conversations are read again",
            folder,
            getattr(error, "strerror", None) or type(error).__name__,
        )
        return None


def _write_once(path: Path, text: str) -> None:
    """Write the file, whole and readable by its owner only, unless it is there."""
    if path.exists():
        return
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():  # another process may have been faster
            os.link(unfinished, path)
    except FileExistsError:
        pass
    finally:
        unfinished.unlink(missing_ok=True)
