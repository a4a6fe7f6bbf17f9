"""Each file of examples/ runs as its page says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.web_fixtures import serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


async def run(name: str, *arguments: str) -> str:
    """What the example prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def test_every_example_is_on_the_page():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in page


@pytest.mark.slow
async def test_texts_come_without_a_server():
    assert len((await run("offline.py")).splitlines()) >= 3


@pytest.mark.slow
async def test_a_memory_is_saved_and_opened():
    printed = await run("carried_state.py")
    assert "bytes" in printed
    assert "Ada" in printed.splitlines()[2]


@pytest.mark.parametrize("name", ["openai_client.py", "page_client.py"])
async def test_a_client_speaks_to_a_server(name):
    async with serving() as port:
        printed = await run(name, f"http://127.0.0.1:{port}")
    assert "What is my name?" in printed
    if name == "openai_client.py":
        assert "of them not read again" in printed
