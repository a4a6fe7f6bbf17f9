"""The server killed under load, a few times; benchmarks/killed.py does it as often as one likes."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_clients_that_go_on_see_broken_replies_refusals_and_503_and_nothing_else(run):
    found, table = run("killed", "--kills", "1", "--clients", "3")
    assert found["is_kept"], table
    assert found["errors"] == found["sequences_running_left"] == 0
    assert found["outcomes"]["broken"] and found["outcomes"]["whole"]
    assert found["answers"] == 1
