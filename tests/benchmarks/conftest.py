"""Scripts of benchmarks/ run in this process: torch and transformers are imported once."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.lib import roofline

Printed = tuple[dict[str, Any], list[str]]


@pytest.fixture
def run_main(monkeypatch) -> Callable[..., Any]:
    """Runs a module's `main` with a command line, and returns its exit status."""

    def run_main(module: str, *arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        result = importlib.import_module(module).main()
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    return run_main


@pytest.fixture
def run(run_main, monkeypatch, capsys) -> Callable[..., Printed]:
    """Runs a benchmark; the JSON line that it prints, and the lines of its table."""
    monkeypatch.setattr(roofline, "CPU_BYTES", 2**24)

    def run(name: str, *options: str) -> Printed:
        capsys.readouterr()
        status = run_main(f"benchmarks.{name}", *options)
        printed = capsys.readouterr()
        assert not status, printed.err[-2_000:]
        lines = printed.out.splitlines()
        table = [line for line in lines if line.startswith("| ")]
        figures = [json.loads(line) for line in lines if line.startswith("{")]
        assert len(figures) == 1, printed.out
        assert {"device", "versions", "command", "date"} <= figures[0].keys()
        return figures[0], table

    return run
