"""The library of one server: where it is, who has a place in it, and for how long.

The page and the API get this object. Where the library cannot be opened, conversations are in
memory as if nobody had an owner, and `notice` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from falcon_mamba_app.data_folder import data_folder
from falcon_mamba_app.errors import LibraryUnavailable, SettingsError
from falcon_mamba_app.library import Deleted, Library, Place
from falcon_mamba_app.owners import Asking, Owners
from falcon_mamba_app.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 3_600.0


class Keeping:
    """`library` is None where nothing is kept."""

    def __init__(
        self,
        owners: Owners,
        library: Library | None = None,
        *,
        folder: Path | None = None,
        notice: str = "Conversations are kept in memory only",
    ) -> None:
        """`folder` is for files of those who are kept."""
        self.library, self.folder, self.notice = library, folder, notice
        self._owners = owners
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings) -> Keeping:
        """Raises SettingsError where a library that was asked for cannot be had; without being
        asked, the server goes on without one.
        """
        owners, asked = Owners(settings), settings.library
        if not owners.may_keep:
            return cls(owners)
        folder = data_folder(asked.data_dir)
        place = Place(folder=folder, url=asked.database_url)
        try:
            library = await Library.open(place)
        except LibraryUnavailable as error:
            if asked.keep_conversations == "on" or asked.database_url:
                raise SettingsError(f"conversations cannot be kept: {error}") from error
            logger.warning("conversations are in memory only: %s", error)
            return cls(owners, notice=f"Conversations are in memory only: {error}")
        where = "in a database" if asked.database_url else f"in {folder}"
        return cls(owners, library, folder=folder, notice=f"Conversations are kept {where}")

    @classmethod
    def nowhere(cls) -> Keeping:
        """For a page or an API that stands alone."""
        return cls(Owners(Settings()))

    def owner_of(self, request: Asking) -> str | None:
        """Whose conversations the request is about; None where nothing is kept."""
        return None if self.library is None else self._owners.of(request)

    def delete_old(self, days: int, forget: Callable[[str], object]) -> None:
        """From now on delete what nobody used for so many days; each id is told to `forget`."""
        if days and self.library is not None:
            self._sweeping = asyncio.create_task(self._sweep(self.library, days, forget))

    async def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        if self.library is not None:
            await self.library.close()

    async def _sweep(self, library: Library, days: int, forget: Callable[[str], object]) -> None:
        while True:
            gone = Deleted()
            try:
                gone = await library.delete_older(days)
            except LibraryUnavailable as error:
                logger.warning("old conversations were not deleted: %s", error)
            for conversation_id in gone.conversation_ids:
                forget(conversation_id)
            if gone.conversation_ids:
                logger.info("deleted %d conversations older than %d days", len(gone), days)
            await asyncio.sleep(SWEEP_INTERVAL_S)
