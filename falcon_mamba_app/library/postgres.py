"""PostgreSQL through psycopg 3: for several servers over one set of conversations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from falcon_mamba_app.errors import SettingsError

CONNECT_TIMEOUT_S = 5
NUM_READERS = 4


def engines(url: str) -> tuple[Engine, Engine]:
    """The writer's engine and the readers'. Raises SettingsError for a URL that is none."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError("--database-url is no URL; write postgresql://HOST/DATABASE") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(
            f"--database-url names {parsed.get_backend_name()}; allowed is postgresql, and without"
            " the setting the conversations are in a file under --data-dir"
        )
    parsed = parsed.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {
        "max_overflow": 0,
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": CONNECT_TIMEOUT_S},
    }
    writer = create_engine(parsed, pool_size=1, **options)
    return writer, create_engine(parsed, pool_size=NUM_READERS, **options)
