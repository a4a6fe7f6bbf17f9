"""The options of the conversations that outlive their page."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_mamba_app.settings.options import AUTO, option
from falcon_mamba_app.settings.parsing import parse_database_url


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySettings:
    """Which conversations outlive their page, and where they are kept."""

    keep_conversations: str = option(
        AUTO,
        "on disk rather than in memory; auto: those of this machine while nobody else can reach the"
        " server, and those of people who signed in under a name of their own; on: also those under"
        " the one login that all share",
        choices=(AUTO, "on", "off"),
    )
    keep_days: int = option(
        0,
        "delete conversations that nobody used for so many days, but the pinned ones; 0: never",
        at_least=0,
        at_most=36_500,
    )
    data_dir: str = option(AUTO, "folder of what is kept; auto: the system's place for such data")
    database_url: str | None = option(
        None,
        "keep conversations in PostgreSQL instead of a file, as postgresql://HOST/DATABASE",
        parse=parse_database_url,
        is_secret=True,  # it may hold a password
    )
