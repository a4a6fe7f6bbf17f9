"""Where a caller's files and batches are: on the disk of those who are kept, else in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from falcon_mamba_app.api.batches.record import Batches
from falcon_mamba_app.files.store import FileStore
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.visitors import visitor_in


@dataclass(frozen=True, slots=True)
class Desk:
    """One place for files and batches."""

    files: FileStore
    batches: Batches

    @classmethod
    def at(cls, folder: Path | None, copy: str | None) -> Desk:
        """In a folder, or in memory; several copies of the server have a folder each."""
        if folder is None:
            return cls(FileStore(None, copy=copy), Batches(None))
        files, batches = folder / "files" / (copy or ""), folder / "batches" / (copy or "")
        return cls(FileStore(files, copy=copy), Batches(batches))


@dataclass(frozen=True, slots=True)
class Place:
    """Whose files, and on which desk."""

    owner: str
    desk: Desk


class Desks:
    """The desk of each caller."""

    def __init__(self, keeping: Keeping | None, copy: str | None = None) -> None:
        self._keeping, self.copy = keeping, copy
        folder = keeping.folder if keeping is not None else None
        self.kept = Desk.at(folder, copy) if folder is not None else None
        self._in_memory = Desk.at(None, copy)

    def of(self, request: Asking) -> Place:
        owner = self._keeping.owner_of(request) if self._keeping is not None else None
        if owner is not None and self.kept is not None:
            return Place(owner, self.kept)
        return Place(visitor_in(request.state).owner, self._in_memory)
