"""The README's plot: speed and memory against context, from the committed results.

    python -m benchmarks.plot [--result benchmarks/results/context-h100.json] [--out assets]

Writes context-light.svg and context-dark.svg, the same plot for pages of either theme. The line of
the attention model is arithmetic: weights of the same size and a cache of keys and values in bf16.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours that differ by more than hue, each at least 4.5 : 1 against `background`."""

    name: str
    background: str
    ink: str
    grid: str
    ours: str
    other: str


THEMES = (
    Theme("light", "#ffffff", "#24292f", "#d8dee4", "#0550ae", "#953800"),
    Theme("dark", "#0d1117", "#e6edf3", "#30363d", "#79c0ff", "#ffa657"),
)


def draw(result: dict[str, Any], theme: Theme) -> Figure:
    """Three panels over the same axis of context."""
    figure = Figure(figsize=(9.4, 3.4), layout="constrained", facecolor=theme.background)
    writing, reading, memory = figure.subplots(1, 3)
    rows = result["rows"]
    contexts = [row["tokens"] for row in rows]
    _draw_writing(writing, contexts, result, theme)
    _draw_reading(reading, contexts, rows, theme)
    _draw_memory(memory, contexts, result, theme)
    for axes in (writing, reading, memory):
        _dress(axes, contexts, theme)
    return figure


def _draw_writing(axes: Axes, contexts: list[int], result: dict[str, Any], theme: Theme) -> None:
    speeds = [row["decode_tokens_per_s"] for row in result["rows"]]
    limit = result["decode_limit_tokens_per_s"]
    axes.plot(contexts, speeds, color=theme.ours, marker="o")
    axes.axhline(limit, color=theme.other, linestyle="--")
    axes.set_title("writing, tokens/s", color=theme.ink)
    axes.set_ylim(0, 1.2 * limit)
    _label(axes, f"this app: {speeds[-1]:.0f}", 0.8 * speeds[-1], theme.ours)
    _label(axes, f"limit of the memory: {limit:.0f}", 1.06 * limit, theme.other)


def _draw_reading(
    axes: Axes, contexts: list[int], rows: list[dict[str, Any]], theme: Theme
) -> None:
    speeds = [row["read_tokens_per_s"] for row in rows]
    axes.plot(contexts, speeds, color=theme.ours, marker="o")
    axes.set_title("reading, tokens/s", color=theme.ink)
    axes.set_ylim(0, 1.2 * max(speeds))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1_000:g} k" if value else "0")
    _label(axes, f"this app: {speeds[-1]:,.0f}", 0.3 * speeds[-1], theme.ours)


def _draw_memory(axes: Axes, contexts: list[int], result: dict[str, Any], theme: Theme) -> None:
    peaks = [row["peak_bytes"] / 1e9 for row in result["rows"]]
    per_token = result["kv_bytes_per_token"]
    exponents = range(int(log2(contexts[0])), int(log2(contexts[-1])) + 1)
    others = {2**e: peaks[0] + per_token * 2**e / 1e9 for e in exponents}
    axes.plot(contexts, peaks, color=theme.ours, marker="o")
    axes.plot(list(others), list(others.values()), color=theme.other, linestyle="--")
    axes.set_title("peak memory, GB", color=theme.ink)
    top = 4 * peaks[-1]
    axes.set_ylim(0, top)
    _label(axes, f"this app: {peaks[-1]:.2f}", 0.7 * peaks[-1], theme.ours)
    _label(axes, "an attention model of this\nsize, computed", 0.8 * top, theme.other)


def _label(axes: Axes, text: str, height: float, color: str) -> None:
    """Beside its line instead of in a legend."""
    left = float(np.asarray(axes.lines[0].get_xdata())[0])
    axes.text(left, height, text, color=color, va="center")


def _dress(axes: Axes, contexts: list[int], theme: Theme) -> None:
    axes.set_facecolor(theme.background)
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [_short(tokens) for tokens in contexts], color=theme.ink)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tokens of context", color=theme.ink)
    axes.tick_params(colors=theme.ink)
    axes.grid(axis="y", color=theme.grid)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.grid)


def _short(tokens: int) -> str:
    """1024 as 1 k, 1048576 as 1 M."""
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if tokens >= size:
            return f"{tokens / size:g} {unit}"
    return str(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "benchmarks" / "results" / "context-h100.json"
    parser.add_argument("--result", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=ROOT / "assets")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    # Text stays text, and the same result gives the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "context", "font.size": 9}
    for theme in THEMES:
        path = options.out / f"context-{theme.name}.svg"
        draw(result, theme).savefig(path, metadata={"Date": None})
        print(path)


if __name__ == "__main__":
    main()
