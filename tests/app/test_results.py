"""The committed results: a script makes each, a page names it, and quoted figures are its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FILES = sorted(RESULTS.glob("*.json"))
README = "README.md"
NOTES = "benchmarks/results/README.md"
DEPLOY = "docs/deploy.md"
SCALE = "docs/scale.md"


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def page(name: str) -> str:
    """A page's text as one line: a sentence may break anywhere."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_makes_the_result_and_the_index_names_both(path):
    told = path.with_suffix(".md").read_text(encoding="utf-8")
    module = re.search(r"python -m ((?:benchmarks|training)\.\w+)", told)
    assert module and ROOT.joinpath(*module[1].split(".")).with_suffix(".py").is_file()
    index = (ROOT / NOTES).read_text(encoding="utf-8").partition("# All results")[2]
    script = module[1].removeprefix("benchmarks.")
    (row,) = [line for line in index.splitlines() if line.startswith(f"| `{script}` |")]
    base = re.sub(r"-(cpu|h100|h200)$", "", path.stem)
    assert re.search(rf"[ (`]{re.escape(base)}\b", row), f"{row} does not name {path.stem}"


def by(rows: list[dict[str, Any]], /, **wanted: Any) -> dict[str, Any]:
    """The one row with these values."""
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def times(value: float, base: float) -> str:
    return f"{value / base:.1f}"


def of_the_cpu() -> Iterator[tuple[str, str]]:
    figures = result("cpu")["figures"]
    base = by(figures, program="transformers")["tokens_per_s"]
    read, wrote = base["prefill 512"], base["decode 1"]
    yield README, f"| transformers, float32 | {read:,.0f} | {wrote:.0f} |"
    for dtype, words in (("float32", "float32 (the default there)"), ("bfloat16", "bfloat16")):
        ours = by(figures, program="ours, numba", dtype=dtype)["tokens_per_s"]
        cells = (
            f"{ours[key]:,.0f} ({times(ours[key], base[key])}×)"
            for key in ("prefill 512", "decode 1")
        )
        yield README, f"| this app, {words} | {' | '.join(cells)} |"
    yield README, f"needs {result('cpu')['prompt_memory_mb']} MB more memory"
    packed = result("cpu-quantized")["figures"]
    q4, q8, int8 = (by(packed, kind=kind) for kind in ("Q4_K", "Q8_0", "int8"))
    yield (
        NOTES,
        f"in Q4_K {q4['tokens_per_s']:.2f} a second, int8 {int8['tokens_per_s']:.2f}, "
        f"Q8_0 {q8['tokens_per_s']:.2f}: {100 * q4['share']:.0f}, {100 * int8['share']:.0f} and "
        f"{100 * q8['share']:.0f} % of the read bandwidth",
    )
    yield DEPLOY, f"| {q4['tokens_per_s']:.1f} tokens a second ([measured]"


def of_the_h100() -> Iterator[tuple[str, str]]:
    decode = result("decode-h100")
    rows, peers = decode["rows"], {row["rows"]: row["tokens_per_s"] for row in decode["peers"]}
    for number in (1, 8, 32, 64):
        full, packed = (by(rows, rows=number, weights=form) for form in ("none", "nf4"))
        peer = f"{peers[number]:.0f}" if number in peers else ""
        yield (
            README,
            f"| {number} | {full['tokens_per_s']:,.0f} | {full['share_of_roofline']:.0%} | "
            f"{packed['tokens_per_s']:,.0f} | {peer}",
        )
    for row in result("context-h100")["rows"]:
        yield (
            README,
            f"| {row['tokens']:,} | {row['read_tokens_per_s']:,.0f} | "
            f"{row['decode_tokens_per_s']:.1f} | {row['peak_bytes'] / 1e9:.2f} GB |",
        )
    one, snapshots = by(rows, rows=1, weights="none"), result("snapshots-h100")
    yield README, f"| device idle between steps, one row | {one['idle_share']:.1%} |"
    yield (
        README,
        f"| {snapshots['out_ms']:.2f}, {snapshots['back_ms']:.2f} ms; "
        f"{snapshots['newest_back_ms']:.2f} ms |",
    )
    serving = result("serving-h100")
    yield README, f"of the engine alone | {serving['HTTP_1_readers_share']:.3f} |"
    yield (
        README,
        f"{serving['HTTP_32_readers_tokens_per_s']:,.0f} tokens/s, "
        f"{serving['HTTP_32_readers_share']:.3f} |",
    )
    beside = serving["the_long_prompt_meanwhile"]
    yield (
        README,
        f"while {beside['prompt_tokens']:,} tokens are read: p99 between two tokens | "
        f"{beside['busy_p99_ms']:.1f} ms, else {beside['idle_p99_ms']:.1f} |",
    )
    start, later = serving, result("serving-warm-h100")
    cells = (f"{one['from_start_to_first_token']:.1f} s" for one in (start, later))
    yield README, f"a later one | {'; '.join(cells)} |"
    for name, words in (("accuracy-cpu", "on a text"), ("accuracy-h100", "random weights")):
        paths = result(name)["paths"]
        kl = [paths[key]["mean_kl"] for key in ("ours, carried", "transformers, one-shot")]
        cells = "; ".join(f"{value:.1e}" for value in kl)
        assert words in page(README)
        yield README, f" | {cells} |"


def of_the_h200() -> Iterator[tuple[str, str]]:
    rows = result("decode-h200")["rows"]
    *speeds, last = (f"{row['tokens_per_s']:,.0f}" for row in rows)
    *shares, end = (f"{100 * row['share_of_roofline']:.0f}" for row in rows)
    yield (
        NOTES,
        f"{', '.join(speeds)} and {last} tokens/s with 1, 8, 32 and 64 rows, "
        f"{', '.join(shares)} and {end} % of the memory's speed",
    )
    snapshots = result("snapshots-h200")
    yield (
        NOTES,
        f"a snapshot out in {snapshots['out_ms']:.2f} and back in {snapshots['back_ms']:.2f} ms",
    )
    read = by(result("prefill-h200")["rows"], tokens=8_192)["tokens_per_s"]
    yield SCALE, f"{last} tokens/s with 64 rows and {round(read, -2):,.0f} tokens/s read"
    book, states = result("book-h200"), result("states-h200")
    alone = book["ttft_without_s"]
    yield (
        NOTES,
        f"takes {book['ttft_on_book_s'] / alone:.2f} times as long as without (≤ 1.1), "
        f"reading it again {book['ttft_reading_again_s'] / alone:.0f} times",
    )
    again = states["cold_ms"] - states["before_ms"]
    yield NOTES, f"read and checked in {states['fetch_ms']:.0f} ms"
    yield (
        NOTES,
        f"a state is written in {states['write_ms']:.0f} ms; 2,000 tokens are read again in "
        f"{again:.0f} ms",
    )


def of_serving_on_a_cpu() -> Iterator[tuple[str, str]]:
    fairness = result("fairness-cpu")
    yield (
        NOTES,
        f"after {fairness['busy_s']:.2f} s in the median and {fairness['busy_max_s']:.2f} s at "
        f"worst, where 3 × idle + one chunk allow {fairness['bound_s']:.2f} s",
    )
    attacks = [row for row in result("stall-cpu")["rows"] if row["attack"] != "nothing"]
    assert all(row["kept"] for row in attacks)
    worst = max(row["p99_ms"] for row in attacks)
    yield NOTES, f"All of {len(attacks)} attacks leave"
    yield NOTES, f"with {worst:.0f} ms"
    after = [row["ratio"] for row in result("responses-cpu")["rows"]]
    yield NOTES, "{:.2f}, {:.2f} and {:.2f} times as late".format(*after)
    yield README, f"({after[0]:.2f} after 1,054 tokens, {after[-1]:.2f} after 105,554"
    states = result("states-cpu")
    yield (
        NOTES,
        f"takes {states['after_ms'] / states['before_ms']:.2f} times as long as before it, "
        f"{states['cold_ms'] / states['after_ms']:.0f} times less than reading",
    )
    drafts = result("speculation-cpu")["results"]
    best = drafts["every draft right"]["speed"]
    yield NOTES, f"{drafts['JSON repeated']['speed']:.2f} times as fast"
    yield NOTES, f"{best:.2f} times where every draft is right"
    cluster = result("cluster-cpu")
    speeds = cluster["tokens_per_s_2"]
    yield SCALE, f"{speeds['all'] / speeds['one']:.2f} times as many tokens as one"
    first, second = (move["read_again_ms"] / move["moved_ms"] for move in cluster["moves"])
    yield SCALE, f"{first:.0f} times as early as one that reads them again, after 4,035 tokens"
    yield SCALE, f"after 4,035 tokens {second:.0f} times"
    soak = result("soak-cpu")
    yield DEPLOY, f"to {soak['memory_MiB'] * 2**20 / 1e9:.2f} GB in twelve minutes"


def of_fewer_bits() -> Iterator[tuple[str, str]]:
    rows = result("quantization-cpu")["rows"]
    nf4, fp4 = (by(rows, weights=form) for form in ("nf4", "fp4"))
    yield (
        README,
        f"{nf4['mean_kl']:.2f} nats a token in nf4 and {fp4['mean_kl']:.2f} in fp4, and "
        f"{100 * nf4['agreement']:.0f} % or {100 * fp4['agreement']:.0f} %",
    )
    yield NOTES, f"real text | {nf4['mean_kl']:.3f}, {fp4['mean_kl']:.3f} |"
    eight = by(result("quantization-int8-h200")["rows"], weights="int8", tokens=625)
    yield NOTES, f"| {eight['mean_kl']:.4f}, {eight['agreement']:.1%} |".replace("%", " %")
    loading = result("loading-h100")
    yield (
        NOTES,
        f"| {loading['device_peak_bytes'] / 1e9:.2f} GB for the "
        f"{loading['held_bytes'] / 1e9:.2f} GB that are kept |",
    )
    context = result("context-nf4-h100")["rows"]
    speeds = ", ".join(f"{row['decode_tokens_per_s']:.0f}" for row in context)
    yield NOTES, f"| {speeds} tok/s | flat |"
    rows = result("decode-h100")["rows"]
    ratios = [
        by(rows, rows=number, weights="nf4")["tokens_per_s"]
        / by(rows, rows=number, weights="none")["tokens_per_s"]
        for number in (1, 8, 32, 64)
    ]
    yield README, f"{ratios[0]:.1f} times as fast (H100, nf4: "
    yield NOTES, "÷ bf16 | {:.2f}, {:.2f}, {:.2f} |".format(*ratios[1:])


QUOTES = (of_the_cpu, of_the_h100, of_the_h200, of_serving_on_a_cpu, of_fewer_bits)


@pytest.mark.parametrize("quotes", QUOTES, ids=lambda quotes: quotes.__name__)
def test_a_quoted_figure_is_the_result_s(quotes):
    missing = [f"{name}: {words}" for name, words in quotes() if words not in page(name)]
    assert not missing, "\n".join(["these stand nowhere:", *missing])
