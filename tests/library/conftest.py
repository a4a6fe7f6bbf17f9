"""The library at each of the places where it can be."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from falcon_mamba_app.library import Library, Place
from tests.support.private_postgres import find, postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if find("initdb") is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    # Directly below the system's folder: a socket's path has at most 107 bytes, and another user
    # must be able to enter it.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder) / "pg") as url:
            yield url


@pytest.fixture
def empty_postgres(postgres_url: str) -> str:
    """The server's URL, its database as it is at first."""
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres_url


@pytest.fixture(params=["file", "memory", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "postgres":
        return Place(url=request.getfixturevalue("empty_postgres"))
    return Place(folder=tmp_path / "data") if request.param == "file" else Place()


@pytest.fixture
async def library(place: Place) -> AsyncIterator[Library]:
    library = await Library.open(place)
    yield library
    await library.close()
