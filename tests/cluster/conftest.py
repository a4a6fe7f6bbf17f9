"""One pair of copies for all tests that only ask; who kills or replaces a copy waits until both are
back.
"""

from __future__ import annotations

import httpx
import pytest

from tests.support.cluster import copies_of


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with copies_of(folder / "log", folder / "data", "--drain-s=30") as copies:
        yield copies


@pytest.fixture
def copies(pair):
    """The pair, both of them ready; before and after."""
    yield pair
    assert pair.process.poll() is None, pair.output


@pytest.fixture
def http(copies):
    """A client of the one address."""
    with httpx.Client(base_url=copies.url, timeout=60) as client:
        yield client
