"""Writes a benchmark's result: the software and machine, the printed table, and the figures."""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.lib.timing import describe
from falcon_mamba_app.ops import Ops

RESULTS = Path(__file__).parents[1] / "results"


def about(benchmark: str, device: torch.device, ops: Ops) -> dict[str, str]:
    """The facts that every figure needs: software, machine, device and kernels."""
    versions = f"torch {torch.__version__}"
    if device.type == "cuda":
        import triton

        versions += f", triton {triton.__version__}"
    return {
        "device": describe(device),
        "versions": versions,
        "kernels": ops.name,
        "command": " ".join([f"python -m benchmarks.{benchmark}", *sys.argv[1:]]),
        "date": str(date.today()),
    }


def machine() -> str:
    """The CPU's model and its other load: a virtual machine shares its cores with others."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    make, load = names[0] if names else "of unknown make", os.getloadavg()[0]
    return f"{os.cpu_count()} shared CPU cores, {make}, load {load:.1f}"


class Table:
    """A Markdown table that prints each row as it comes."""

    def __init__(self, *heads: str, words: int = 0) -> None:
        """The first `words` columns hold words, the rest figures."""
        self.lines: list[str] = []
        self._show(heads)
        self._show(["---"] * words + ["--:"] * (len(heads) - words))

    def add(self, *cells: str) -> None:
        self._show(cells)

    def _show(self, cells: tuple[str, ...] | list[str]) -> None:
        self.lines.append(f"| {' | '.join(cells)} |")
        print(self.lines[-1], flush=True)


def finish(
    title: str, facts: dict[str, str], table: Table, result: dict[str, Any], save: str | None
) -> None:
    """Print one JSON line; with a name to save under also write results/NAME.json and .md."""
    finish_several(title, facts, [table], result, save)


def finish_several(
    title: str, facts: dict[str, str], tables: list[Table], result: dict[str, Any], save: str | None
) -> None:
    """`finish` for a page of several tables."""
    line = json.dumps({**facts, **result})
    print(line)
    if save is None:
        return
    (RESULTS / f"{save}.json").write_text(line + "\n", encoding="utf-8")
    page = [f"# {title}", "", *(f"- {key}: {value}" for key, value in facts.items())]
    for table in tables:
        page += ["", *table.lines]
    (RESULTS / f"{save}.md").write_text("\n".join(page) + "\n", encoding="utf-8")
