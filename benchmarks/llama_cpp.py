"""One GGUF file in llama.cpp and here: the same first choices, and both speeds, in turns.

    GOMP_SPINCOUNT=100 python -m benchmarks.llama_cpp FOLDER [--layers 8] [--save NAME]

FOLDER holds llama.cpp's libraries; `benchmarks/lib/llama_cpp.py` says which and where from. The
bundled model is written as GGUF in several kinds and reads a conversation in both programs, which
say at each of its tokens what they would write next. Then both read a prompt and write, with the
same number of threads, and so with a random file of the 7B's shape. A ratio is the median over
rounds in which the two take turns; tokens per second are the best round's. Exit status 1 below the
floors named here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.accuracy import Reader
from benchmarks.cpu import about, random_ids
from benchmarks.lib import report
from benchmarks.lib.llama_cpp import LlamaCpp, NoLibrary
from benchmarks.lib.models import FALCON_MAMBA_7B
from benchmarks.lib.random_gguf import write_random_gguf
from benchmarks.quantization import real_text
from falcon_mamba_app.checkpoint.gguf.write import write_gguf
from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER
from falcon_mamba_app.checkpoint.placement import Machine, Room, decide
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.settings import ModelSettings

BUNDLED_KINDS = ("F32", "Q8_0", "Q4_0")
MIN_SAME = {"F32": 0.995, "Q8_0": 0.96, "Q4_0": 0.96}  # llama.cpp rounds activations to 8 bits
MIN_RATIO = 1.0  # ours over llama.cpp's tokens a second


class Program(Protocol):
    def choices(self, token_ids: list[int]) -> list[int]: ...
    def read_s(self, token_ids: list[int]) -> float: ...
    def write_s(self, num_tokens: int) -> float: ...


@dataclass(frozen=True, slots=True)
class Effort:
    rounds: int
    prompt: int
    written: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one file. same: the share of tokens after which both choose the same next one; None for
    random weights, which choose nothing.
    """

    file: str
    same: float | None
    tokens: int
    write_tokens_per_s: float
    write_ratio: float
    read_tokens_per_s: float
    read_ratio: float


class Ours:
    """The file as the app loads it, without an engine, as the other side has none."""

    def __init__(self, path: Path) -> None:
        asked = ModelSettings(model=str(path), device="cpu")
        placement = decide(asked, Room(max_running=1, max_prefill_tokens=1), Machine.look("cpu"))
        model = load_model(
            placement.checkpoint,
            device=placement.device,
            dtype=placement.dtype,
            make_model=lambda config: FalconMamba(config, placement.ops),
            quantization=placement.quantization,
        )
        assert isinstance(model, FalconMamba)
        self._model, self._reader = model, Reader(model)

    def choices(self, token_ids: list[int]) -> list[int]:
        self._reader.forget()
        found: list[int] = self._reader.read(torch.tensor(token_ids)).argmax(-1).tolist()
        return found

    def read_s(self, token_ids: list[int]) -> float:
        self._reader.forget()
        began = time.perf_counter()
        self._reader.read_on(torch.tensor(token_ids[:-1]))
        self._reader.write(torch.tensor(token_ids[-1:])).argmax(-1).tolist()
        return time.perf_counter() - began

    def write_s(self, num_tokens: int) -> float:
        self._reader.forget()
        token = self._reader.write(torch.tensor([1, 2]))[-1:].argmax(-1)
        began = time.perf_counter()
        for _ in range(num_tokens):
            token = self._reader.write(token).argmax(-1)
        return time.perf_counter() - began


def compare(
    name: str, ours: Program, theirs: Program, effort: Effort, text: list[int] | None
) -> Figures:
    same = None
    if text is not None:
        pairs = zip(ours.choices(text), theirs.choices(text), strict=True)
        same = statistics.fmean(a == b for a, b in pairs)
    prompt = random_ids(effort.prompt)
    write_s, write_ratio = _in_turns(
        lambda: ours.write_s(effort.written), lambda: theirs.write_s(effort.written), effort.rounds
    )
    read_s, read_ratio = _in_turns(
        lambda: ours.read_s(prompt), lambda: theirs.read_s(prompt), effort.rounds
    )
    return Figures(
        name, same, len(text or ()), effort.written / write_s, write_ratio,
        effort.prompt / read_s, read_ratio,
    )  # fmt: skip


def _in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[float, float]:
    """Our best seconds, and the median of their seconds over ours. The first round compiles."""
    pairs = [(ours(), theirs()) for _ in range(1 + rounds)][1:]
    return min(pair[0] for pair in pairs), statistics.median(b / a for a, b in pairs)


def files(folder: Path, layers: int) -> Iterator[tuple[str, Path, list[int] | None, Effort]]:
    """What is compared: a name, a file, the text that both read, and for how long."""
    text: list[int] = real_text().tolist()
    for kind in BUNDLED_KINDS:
        path = folder / f"nano-{kind}.gguf"
        write_gguf(BUNDLED_FOLDER, path, kind)
        yield f"bundled, {kind}", path, text, Effort(rounds=7, prompt=512, written=64)
    config: ModelConfig = replace(FALCON_MAMBA_7B, num_layers=layers)
    path = folder / "random-Q4_K_M.gguf"
    write_random_gguf(path, config)
    yield f"7B, {layers} layers, Q4_K", path, None, Effort(rounds=5, prompt=128, written=12)


def shortfalls(figures: list[Figures]) -> list[str]:
    """What is below its floor, in words."""
    found = []
    for row in figures:
        least = MIN_SAME.get(row.file.rpartition(" ")[2], 0.0)
        checks = (
            ("the same first choices", row.same, least),
            ("writing ÷ llama.cpp", row.write_ratio, MIN_RATIO),
            ("reading ÷ llama.cpp", row.read_ratio, MIN_RATIO),
        )
        found += [
            f"{row.file}: {what}: {value:.3f}, not {floor}"
            for what, value, floor in checks
            if value is not None and value < floor
        ]
    return found


def show(figures: list[Figures]) -> report.Table:
    table = report.Table(
        "file", "the same first choice", "writing, tok/s", "÷ llama.cpp", "reading, tok/s",
        "÷ llama.cpp", words=1,
    )  # fmt: skip
    for row in figures:
        table.add(
            row.file, "" if row.same is None else f"{row.same:.1%} of {row.tokens}",
            f"{row.write_tokens_per_s:,.1f}", f"{row.write_ratio:.2f}",
            f"{row.read_tokens_per_s:,.1f}", f"{row.read_ratio:.2f}",
        )  # fmt: skip
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of libllama and libggml")
    parser.add_argument("--layers", type=int, default=8, help="of the file of the 7B's shape")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    num_threads, figures, what = torch.get_num_threads(), [], ""
    with tempfile.TemporaryDirectory() as folder:
        for name, path, text, effort in files(Path(folder), options.layers):
            try:
                theirs = LlamaCpp(options.folder, path, num_threads)
            except NoLibrary as error:
                print(error, file=sys.stderr)
                return 2
            what = theirs.about
            figures.append(compare(name, Ours(path), theirs, effort, text))
            theirs.close()
    facts = {
        **about("llama_cpp"),
        "command": f"python -m benchmarks.llama_cpp FOLDER --layers {options.layers}",
        "threads": str(num_threads),
        "llama.cpp": what.strip(" |"),
    }
    result = {"figures": [asdict(row) for row in figures]}
    report.finish("One GGUF file in llama.cpp and here", facts, show(figures), result, options.save)
    missed = shortfalls(figures)
    print(*(f"BELOW THE FLOOR: {words}" for words in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
