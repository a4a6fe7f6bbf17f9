"""The bundled model on this machine's CPU: transformers, and our engine on both sets of kernels.

    GOMP_SPINCOUNT=100 python -m benchmarks.cpu [--quick] [--only decode] [--save NAME]

Prints a table and one JSON line. Ours runs through `Engine.step()`, sampling included; transformers
through `generate`, greedy, in fp32. Every figure is the best of rounds that take turns, because a
shared machine only ever makes things slower. The spin count is the one `cpu_choices.py` found best.
Exit status 1 below the floors named here.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.lib import report, roofline
from benchmarks.lib.models import bundled_model
from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import SamplingParams
from falcon_mamba_app.settings import EngineSettings

MODEL = Path(__file__).parents[1] / "assets" / "nano"
CPU = torch.device("cpu")

MIN_PREFILL_RATIO, MIN_DECODE_RATIO = 5.0, 2.5  # ours over transformers, both in fp32
MAX_PROMPT_MEMORY_MB = 64.0  # what a prompt 32 times as long may add to the process's peak
PROMPT = 512  # tokens of the prompt that both sides read
CONFIGURATIONS = list(itertools.product(("numba", "reference"), ("float32", "bfloat16")))

_seq_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    new_tokens: int  # decoded by each row
    prompts: tuple[int, ...]
    memory_prompts: tuple[int, int]


FULL = Effort(rounds=5, new_tokens=200, prompts=(PROMPT, 4096), memory_prompts=(1_024, 32_768))
QUICK = Effort(rounds=2, new_tokens=50, prompts=(PROMPT,), memory_prompts=(512, 16_384))


@dataclass(slots=True)
class Figures:
    """Tokens per second of one program, the best so far, by what was measured."""

    program: str
    dtype: str
    bytes_per_step: int  # weights and one row's state, each once
    tokens_per_s: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, num_tokens: int, seconds: float) -> None:
        self.tokens_per_s[what] = max(self.tokens_per_s.get(what, 0.0), num_tokens / seconds)

    @property
    def decode_gb_per_s(self) -> float:
        return self.tokens_per_s["decode 1"] * self.bytes_per_step / 1e9


class Ours:
    """The engine on one set of kernels."""

    def __init__(self, kernels: str, dtype: str) -> None:
        self._model = load(kernels, dtype)
        config, size = self._model.config, self._model.dtype.itemsize
        self.figures = Figures(f"ours, {kernels}", dtype, config.bytes_moved_per_step(1, size))

    def round(self, effort: Effort) -> None:
        for length in effort.prompts:
            self.figures.add(f"prefill {length}", length, prefill_s(self._model, length))
        for num_rows in (1, 8):
            num_tokens, seconds = decode(self._model, num_rows, effort.new_tokens)
            self.figures.add(f"decode {num_rows}", num_tokens, seconds)


class Transformers:
    """`generate` of the library, as its documentation shows it."""

    def __init__(self, bytes_per_step: int) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        self.figures = Figures("transformers", "float32", bytes_per_step)

    def round(self, effort: Effort) -> None:
        num_tokens = effort.new_tokens // 4
        if effort.prompts:
            prefill = timed(lambda: self._generate(PROMPT, 1))
            self.figures.add(f"prefill {PROMPT}", PROMPT, prefill)
        first = timed(lambda: self._generate(1, 1))
        rest = timed(lambda: self._generate(1, 1 + num_tokens)) - first
        self.figures.add("decode 1", num_tokens, rest)

    def _generate(self, prompt_tokens: int, new_tokens: int) -> None:
        prompt = torch.tensor([random_ids(prompt_tokens)])
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )


def load(kernels: str, dtype: str) -> FalconMamba:
    return bundled_model(select_ops(CPU, kernels), CPU, getattr(torch, dtype))


def make_engine(model: FalconMamba) -> Engine:
    return build_engine(
        model,
        eos_token_ids=frozenset(),
        max_running=8,
        max_prefill_tokens=EngineSettings().on(has_gpu=False).max_prefill_tokens,
        max_snapshot_bytes=0,
    )


def add_sequence(engine: Engine, prompt_tokens: int, **sampling: Any) -> None:
    params = SamplingParams(ignore_eos=True, **sampling)
    prompt = random_ids(prompt_tokens)
    engine.add(Sequence(seq_id=next(_seq_ids), prompt_token_ids=prompt, sampling=params, seed=1))


def random_ids(length: int) -> list[int]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(100, 8000, (length,), generator=generator).tolist()


def prefill_s(model: FalconMamba, length: int) -> float:
    """Seconds to read `length` tokens; the last of a prompt is left to decode."""
    engine = make_engine(model)
    add_sequence(engine, length + 1, max_new_tokens=0)
    return timed(lambda: finish(engine))


def decode(model: FalconMamba, num_rows: int, new_tokens: int) -> tuple[int, float]:
    """Tokens that the rows sample after the first few steps, and the seconds that takes."""
    engine = make_engine(model)
    for _ in range(num_rows):
        add_sequence(engine, 2, max_new_tokens=new_tokens, temperature=0.8, top_p=0.95)
    for _ in range(num_rows + 4):
        engine.step()
    began = time.perf_counter()
    num_tokens = finish(engine)
    return num_tokens, time.perf_counter() - began


def finish(engine: Engine) -> int:
    """Step until nothing is left; returns the number of tokens sampled."""
    num_tokens = 0
    while engine.has_work:
        num_tokens += sum(isinstance(event, Sampled) for event in engine.step())
    return num_tokens


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_mb(prompt_tokens: int) -> float:
    """The highest memory of a fresh process that reads a prompt and generates eight tokens."""
    command = [sys.executable, "-m", "benchmarks.cpu", "--peak-of", str(prompt_tokens)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def print_own_peak(prompt_tokens: int) -> None:
    engine = make_engine(load("numba", "float32"))
    add_sequence(engine, prompt_tokens, max_new_tokens=8)
    finish(engine)
    # Not ru_maxrss: that of a child begins at what its parent held when it was started.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")))


def measure(effort: Effort) -> list[Figures]:
    ours = [Ours(kernels, dtype) for kernels, dtype in CONFIGURATIONS]
    bytes_per_step = next(o.figures.bytes_per_step for o in ours if o.figures.dtype == "float32")
    programs: list[Transformers | Ours] = [Transformers(bytes_per_step), *ours]
    for _ in range(effort.rounds):
        for program in programs:
            program.round(effort)
    return [program.figures for program in programs]


def show(figures: list[Figures]) -> report.Table:
    """Ratios are to transformers."""
    names = list(figures[1].tokens_per_s)
    heads = [f"{name}, tok/s" for name in names]
    table = report.Table("program", "dtype", *heads, "decode 1, GB/s", words=2)
    for row in figures:
        cells = [_cell(row.tokens_per_s.get(n), figures[0].tokens_per_s.get(n)) for n in names]
        table.add(row.program, row.dtype, *cells, f"{row.decode_gb_per_s:.1f}")
    return table


def _cell(value: float | None, base: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" + (f" ({value / base:.1f}×)" if base else "")


def shortfalls(figures: list[Figures], prompt_memory_mb: float) -> list[str]:
    """The measures below their floors, in words."""
    theirs, ours = figures[0].tokens_per_s, figures[1].tokens_per_s
    floors = {f"prefill {PROMPT}": MIN_PREFILL_RATIO, "decode 1": MIN_DECODE_RATIO}
    ratios = {what: ours[what] / theirs[what] for what in floors if what in ours}
    checks = [
        *(
            (r >= floors[what], f"{what} is {r:.1f}×, not {floors[what]}×")
            for what, r in ratios.items()
        ),
        (
            prompt_memory_mb <= MAX_PROMPT_MEMORY_MB,
            f"a long prompt takes {prompt_memory_mb:.0f} MB more, not {MAX_PROMPT_MEMORY_MB:.0f}",
        ),
    ]
    return [words for holds, words in checks if not holds]


def about(benchmark: str) -> dict[str, str]:
    """The machine's facts, with numba's version and OpenMP's spinning, which matter here."""
    import numba

    facts = report.about(benchmark, CPU, select_ops(CPU, "auto"))
    return {
        **facts,
        "versions": f"{facts['versions']}, numba {numba.__version__}",
        "machine": f"{report.machine()}: trust the ratios more where that is not 0",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "default"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, for CI")
    parser.add_argument("--only", choices=["decode"], help="read no prompts")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only and options.save:
        parser.error("--save needs all figures, not --only some")
    if options.peak_of:
        print_own_peak(options.peak_of)
        return 0
    effort = QUICK if options.quick else FULL
    if options.only:
        effort = replace(effort, prompts=())
    facts = {**about("cpu"), "rounds": f"best of {effort.rounds}"}
    low, high = effort.memory_prompts
    figures = measure(effort)
    # After the rest, so that neither process is the one that compiles the kernels.
    prompt_memory_mb = peak_mb(high) - peak_mb(low) if effort.prompts else 0.0
    read = roofline.measure(CPU).read_bytes_per_s / 1e9
    facts["read bandwidth"] = f"{read:.1f} GB/s"
    if effort.prompts:
        facts["memory"] = (
            f"a {high:,}-token prompt takes {prompt_memory_mb:+.1f} MB over a {low:,}-token one"
        )
    result = {
        "read_gb_per_s": round(read, 1),
        "prompt_memory_mb": round(prompt_memory_mb, 1),
        "figures": [asdict(f) | {"decode_gb_per_s": f.decode_gb_per_s} for f in figures],
    }
    title = "The bundled model on a CPU"
    report.finish(title, facts, show(figures), result, options.save)
    missed = shortfalls(figures, prompt_memory_mb)
    print(*(f"BELOW THE FLOOR: {words}" for words in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
