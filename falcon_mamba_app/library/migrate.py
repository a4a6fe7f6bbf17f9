"""Bring a database to the schema that this code reads, or refuse it with a sentence.

alembic is imported only where there is something to do.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

import falcon_mamba_app.library.schema as schema
import falcon_mamba_app.library.sqlite as sqlite
from falcon_mamba_app.errors import LibraryUnavailable

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"


def bring_up_to_date(writer: Engine, path: Path | None) -> None:
    """Migrate what is older, after a copy of the file; raise LibraryUnavailable for what is newer.

    All of it is one transaction: another process that starts meanwhile waits, and a process that
    ends half-way has changed nothing.
    """
    with writer.connect() as connection, connection.begin():
        version = version_of(connection)
    if version == schema.HEAD:
        return
    if version is not None:
        _refuse_newer(version)
        if path is not None:
            sqlite.copy_file(path, path.with_name(f"{path.name}.before-{schema.HEAD}"))
    with writer.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":  # one at a time; SQLite's BEGIN does it alone
            connection.execute(text("SELECT pg_advisory_xact_lock(723001)"))
        if version_of(connection) != schema.HEAD:
            upgrade(connection)
    logger.info("the conversations' database has schema %s", schema.HEAD)


def version_of(connection: Connection) -> str | None:
    """The schema's version in the database; None where there is no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, to: str = "head") -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a dozen lines about its plugins
    from alembic import command

    command.upgrade(_config(connection), to)


def _config(connection: Connection | None = None):  # type: ignore[no-untyped-def]
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_newer(version: str) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if version not in known:
        raise LibraryUnavailable(
            f"the conversations were kept by a newer version of this app (schema {version}; this"
            f" one knows up to {schema.HEAD}); install that version, or choose another --data-dir"
        )
