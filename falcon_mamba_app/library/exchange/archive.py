"""A tree with its states as one zip: `conversation.json`, and each state's file beside it.

A zip that would unfold to more than it may, or that has other things in it, costs a sentence.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.library.exchange.writing import as_json
from falcon_mamba_app.library.tree import Tree

TREE = "conversation.json"
STATE = re.compile(r"states/[\w.-]{1,200}\.safetensors", re.ASCII)
MAX_FILES = 1_000
MAX_UNFOLDED_BYTES = 512 * 2**20
MAX_JSON_BYTES = 128 * 2**20
MAX_RATIO = 200  # of what text is folded to
PIECE_BYTES = 2**20
FOLDINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, ValueError, OSError)


def bundle(tree: Tree, states: Mapping[str, bytes]) -> bytes:
    """The zip of a conversation; `states` are files by their names, without a folder."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TREE, as_json(tree))
        for name, state in states.items():
            path = f"states/{name}.safetensors"
            assert STATE.fullmatch(path), f"no name of a state: {name}"
            # Numbers of a state hardly fold, and that would take a second each.
            archive.writestr(path, state, compress_type=zipfile.ZIP_STORED)
    return data.getvalue()


def unbundle(data: bytes, *, wanted: tuple[str, ...] = (TREE,)) -> tuple[bytes, dict[str, bytes]]:
    """The first of the wanted files that is there, and the states by name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _unfold(archive, wanted)
    except DAMAGE as error:
        raise InvalidRequest(f"the zip is damaged ({type(error).__name__})") from None
    except (NotImplementedError, RuntimeError):
        raise InvalidRequest("the zip is encrypted, or folded in a way not known here") from None


def _unfold(archive: zipfile.ZipFile, wanted: tuple[str, ...]) -> tuple[bytes, dict[str, bytes]]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise InvalidRequest(f"the zip has {len(entries):,} files; allowed are {MAX_FILES:,}")
    whole = sum(entry.file_size for entry in entries)
    if whole > MAX_UNFOLDED_BYTES:
        raise InvalidRequest(
            f"the zip unfolds to {whole:,} bytes; allowed are {MAX_UNFOLDED_BYTES:,}"
        )
    names = {entry.filename: entry for entry in entries}
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise InvalidRequest(f"the zip has no {' and no '.join(wanted)}")
    states = {
        name.removeprefix("states/").removesuffix(".safetensors"): _read(archive, entry)
        for name, entry in names.items()
        if STATE.fullmatch(name)
    }
    return _read(archive, names[found], MAX_JSON_BYTES), states


def _read(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int = MAX_UNFOLDED_BYTES
) -> bytes:
    """The file, as long as it is no longer than it says, and than so little could unfold to."""
    if entry.compress_type not in FOLDINGS:
        raise NotImplementedError
    limit = min(limit, entry.file_size, MAX_RATIO * entry.compress_size + PIECE_BYTES)
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit or len(data) < entry.file_size:
        raise InvalidRequest(f"{entry.filename} in the zip unfolds to more than {limit:,} bytes")
    return data
