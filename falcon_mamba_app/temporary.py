"""Where temporary files go: the system's folder, or memory where its disks are full.

Compilers, Gradio and Python itself want such a folder. Without room in it a start ended in the
middle, in the words of whichever of them wrote first.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from falcon_mamba_app.errors import SettingsError

logger = logging.getLogger(__name__)

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2**20  # a compiled kernel with everything that is written on the way to it


def check_room(folder: Path) -> None:
    """Raises OSError where files of ROOM_BYTES cannot be written now."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(ROOM_BYTES))
        file.flush()


def folder_with_room(memory: Path = MEMORY) -> str | None:
    """The folder for temporary files, or memory where that is full; None if there is neither."""
    for folder in (_of_the_system(), memory):
        try:
            if folder is not None:
                check_room(folder)
                return str(folder)
        except OSError:
            continue
    return None


def keep_temporary_files(memory: Path = MEMORY) -> None:
    """Where there is room for them, from now on and in whatever is started.

    Raises SettingsError where there is none.
    """
    folder, before = folder_with_room(memory), _of_the_system()
    if folder is None:
        raise SettingsError(
            f"no folder has room for temporary files, {ROOM_BYTES // 2**20} MiB of them; make some,"
            " or name a folder that has it in TMPDIR"
        )
    os.environ["TMPDIR"] = folder  # Python may have passed over a full one, compilers do not
    if folder == str(memory) and before != memory:
        logger.warning(
            "%s has no room for temporary files; they are kept in memory, in %s",
            before or "no disk",
            memory,
        )
        tempfile.tempdir = folder


def _of_the_system() -> Path | None:
    """TMPDIR, or else what is usual; None where not even a few bytes can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None
