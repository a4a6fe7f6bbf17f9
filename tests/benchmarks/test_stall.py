"""That no visitor makes the others wait; benchmarks/stall.py measures all of it, with bounds."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from benchmarks.stall import Row as row
from benchmarks.stall import is_like, is_within
from tests.app.test_app import ROOT
from tests.support.web_fixtures import serving


@pytest.mark.slow
async def test_nothing_that_a_visitor_sends_makes_health_wait():
    """Before, a body in small chunks made it wait for 2.9 s, pages that close for 2.3 s, and JSON
    of empty objects for 2.5 s.
    """
    async with serving("--trusted-proxies", "127.0.0.1") as port:
        options = ("--quick", "--address", f"http://127.0.0.1:{port}")
        attacker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.stall", *options),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await attacker.communicate()
    found = json.loads(printed)
    assert len(found["rows"]) > 8
    assert found["is_kept"], found["rows"]


def test_the_bounds_are_bounds():
    idle = row("nothing", "", 1.0, [1.0] * 98 + [9.0, 10.0])
    assert is_within(idle) and is_like(idle)(idle)
    assert not is_within(row("", "", 1.0, [1.0] * 99 + [251.0]))
    assert not is_within(row("", "", 1.0, [1.0] * 97 + [101.0] * 3))
    assert not is_within(row("", "", 1.0, [1.0], (100, 111)))
    assert not is_like(idle)(row("", "", 1.0, [1.0] * 99 + [2_300.0]))
