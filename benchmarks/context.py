"""What a long context costs: nothing. Speeds and memory against the number of tokens read.

    python -m benchmarks.context [--lengths 1024 8192 131072 1048576] [--weights nf4] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. For each length
one session through `Engine.step()`, sampling included: it reads a prompt, writes, and then gets
turns of 64 new tokens, whose time to the first token is set against that of the same turn without
any history. Prints a table and one JSON line. Peak memory, on a GPU as if nothing else were there,
must not depend on the length.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks.decode import SAMPLING, bytes_moved, engine_over
from benchmarks.lib.models import bundled_model, in_form, random_7b
from benchmarks.lib.report import Table, about, finish
from benchmarks.lib.roofline import measure
from benchmarks.prefill import bytes_of_others, peak_bytes
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.ops.select import select_ops

TURN_TOKENS = 64
WARM_UP_TOKENS = 4_097
_seq_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Row:
    """One context. `turn_ratio` is the time to a turn's first token over that with no history."""

    tokens: int
    read_tokens_per_s: float
    decode_tokens_per_s: float
    turn_ms: float
    turn_ratio: float
    peak_bytes: int


def random_ids(engine: Engine, num_tokens: int) -> list[int]:
    generator = torch.Generator().manual_seed(num_tokens)
    size = (num_tokens,)
    ids: list[int] = torch.randint(
        20, engine.model.config.vocab_size, size, generator=generator
    ).tolist()
    return ids


def start(engine: Engine, prompt: list[int], *, session_id: str, new_tokens: int) -> Sequence:
    sampling = replace(SAMPLING, max_new_tokens=new_tokens)
    seq = Sequence(
        seq_id=next(_seq_ids),
        prompt_token_ids=prompt,
        sampling=sampling,
        seed=0,
        session_id=session_id,
    )
    engine.add(seq)
    return seq


def first_token_s(engine: Engine) -> float:
    """Seconds until something has been sampled."""
    started_s = time.perf_counter()
    while not any(isinstance(event, Sampled) for event in engine.step()):
        pass
    return time.perf_counter() - started_s


def step_s(engine: Engine, *, steps: int) -> float:
    """Median seconds of a step."""
    times = []
    for _ in range(steps):
        started_s = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def finish_all(engine: Engine) -> None:
    while engine.has_work:
        engine.step()
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize()


def turn_s(engine: Engine, history: list[int], *, session_id: str) -> tuple[float, list[int]]:
    """Seconds to the first token of a turn after `history`, and the history after the turn."""
    seq = start(
        engine,
        history + random_ids(engine, TURN_TOKENS),
        session_id=session_id,
        new_tokens=2,
    )
    seconds = first_token_s(engine)
    finish_all(engine)
    return seconds, [*seq.prompt_token_ids, *seq.output_token_ids]


def fresh_turn_s(engine: Engine, turns: int) -> float:
    """Median seconds to the first token of a conversation's first turn."""
    times = []
    for _ in range(turns):
        times.append(turn_s(engine, [], session_id="fresh")[0])
        engine.forget("fresh")
    return statistics.median(times)


def measure_context(engine: Engine, length: int, *, steps: int, turns: int) -> Row:
    session_id = f"{length} tokens"
    seq = start(engine, random_ids(engine, length), session_id=session_id, new_tokens=steps + 10)
    read_s = first_token_s(engine)
    decode_s = step_s(engine, steps=steps)
    finish_all(engine)
    history = [*seq.prompt_token_ids, *seq.output_token_ids]
    times = []
    for _ in range(turns):
        seconds, history = turn_s(engine, history, session_id=session_id)
        times.append(seconds)
    fresh_s = fresh_turn_s(engine, turns)
    engine.forget(session_id)
    return Row(
        tokens=length,
        read_tokens_per_s=length / read_s,
        decode_tokens_per_s=1 / decode_s,
        turn_ms=1_000 * statistics.median(times),
        turn_ratio=statistics.median(times) / fresh_s,
        peak_bytes=peak_bytes(engine.model.device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    lengths = [1_024, 8_192, 32_768, 131_072, 1_048_576]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--steps", type=int, default=100, help="decoded at each length")
    parser.add_argument("--turns", type=int, default=9, help="at each length")
    parser.add_argument("--weights", default="none", choices=("none", "nf4", "fp4"))
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, options.kernels)
    model = (random_7b if device.type == "cuda" else bundled_model)(ops, device, torch.bfloat16)
    model = in_form(model, options.weights)
    of_others = bytes_of_others(model)
    engine = engine_over(model, max_running=1)
    # Compiles and warms up; with as many turns, so that memory too has been asked for before.
    measure_context(engine, WARM_UP_TOKENS, steps=5, turns=options.turns)
    table = Table("context", "read tok/s", "write tok/s", "turn ms", "÷ no history", "peak GB")
    rows = []
    for length in options.lengths:
        row = measure_context(engine, length, steps=options.steps, turns=options.turns)
        row = replace(row, peak_bytes=row.peak_bytes - of_others)
        rows.append(asdict(row))
        table.add(
            f"{length}",
            f"{row.read_tokens_per_s:.0f}",
            f"{row.decode_tokens_per_s:.1f}",
            f"{row.turn_ms:.2f}",
            f"{row.turn_ratio:.3f}",
            f"{row.peak_bytes / 1e9:.3f}",
        )
    # Last: its own memory would be a CPU process's peak.
    read = measure(device).read_bytes_per_s
    limit = read / bytes_moved(model, 1)
    facts = about("context", device, ops) | {
        "reads": f"{read / 1e9:.0f} GB/s, at which one row decodes {limit:.0f} tok/s"
    }
    result = {
        "benchmark": "context",
        "weights": options.weights,
        "read_bytes_per_s": read,
        "decode_limit_tokens_per_s": limit,
        "kv_bytes_per_token": model.config.kv_bytes_per_token(),
        "rows": rows,
    }
    finish("Context", facts, table, result, options.save)


if __name__ == "__main__":
    main()
