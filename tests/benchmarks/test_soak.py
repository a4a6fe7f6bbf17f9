"""The soak, short: benchmarks/soak.py runs for ten minutes where it matters."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_crowd_leaves_nothing_behind_and_the_app_ends_cleanly(run):
    found, table = run("soak", "--visitors", "8", "--minutes", "0.2", "--unbounded")
    assert found["is_kept"], table
    assert found["errors"] == found["snapshots_left"] == found["sequences_running_left"] == 0
    assert found["tokens"] > 0
    assert any(name.startswith("page:_") for name in found)
    assert any(name.startswith("api:_") for name in found)
