"""Decode speed through `Engine.step()`, sampling included, against the memory's speed.

    python -m benchmarks.decode [--batch 1 8 32 64] [--steps 100] [--weights none int8 nf4]
                                [--peers] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model; then the same
with its matrices in 8 and in 4 bits. Prints a table and one JSON line. A row's roofline is the time
to read the weights once and every row's state once, and to write the states, at the bandwidth
measured in the same run. "Idle" is the share of a step in which a GPU has nothing to do: what the
step takes beyond the same work launched without a pause. With `--peers` transformers and, where it
is installed, mamba-ssm decode the same shape.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.lib import peers
from benchmarks.lib.models import bundled_model, forms, in_form, random_7b
from benchmarks.lib.report import Table, about, finish
from benchmarks.lib.roofline import measure
from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import weights_bytes
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import SamplingParams

UNPAUSED_STEPS = 20
PEER_BATCHES = (1, 32)
SAMPLING = SamplingParams(
    temperature=0.7, top_p=0.9, seed=1, ignore_eos=True, max_new_tokens=1_000_000
)


def engine_over(model: FalconMamba, *, max_running: int, max_prefill_tokens: int = 2048) -> Engine:
    return build_engine(
        model,
        eos_token_ids=frozenset({11}),
        max_running=max_running,
        max_prefill_tokens=max_prefill_tokens,
        max_snapshot_bytes=2**30,
    )


def add_sequences(engine: Engine, num_rows: int, *, prompt_tokens: int) -> None:
    """Fill the engine with sequences and step until all of them decode."""
    generator = torch.Generator().manual_seed(0)
    for seq_id in range(num_rows):
        size = (prompt_tokens,)
        ids = torch.randint(20, engine.model.config.vocab_size, size, generator=generator)
        engine.add(
            Sequence(seq_id=seq_id, prompt_token_ids=ids.tolist(), sampling=SAMPLING, seed=seq_id)
        )
    decoding: set[int] = set()
    while len(decoding) < num_rows:
        decoding |= {event.seq_id for event in engine.step() if isinstance(event, Sampled)}


def step_s(engine: Engine, num_rows: int, *, steps: int) -> float:
    """Median seconds of one step with all rows decoding."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        num_tokens = sum(isinstance(event, Sampled) for event in engine.step())
        times.append(time.perf_counter() - start)
        assert num_tokens == num_rows, f"{num_tokens} tokens of {num_rows} rows"
    return statistics.median(times[len(times) // 5 :])


def unpaused_step_s(engine: Engine) -> float | None:
    """Seconds the device needs for a step, launched one after the other without a look at their
    results; None on a CPU, where a launch is the work.
    """
    if engine.model.device.type == "cpu":
        return None
    rows = engine._scheduler.plan().decode
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # The device waits here until the steps behind it are launched.
    torch.cuda._sleep(50_000_000)
    start.record()
    launched = [engine._launch(rows, []) for _ in range(UNPAUSED_STEPS)]
    end.record()
    end.synchronize()
    for step, failures in launched:
        assert not failures, failures
        engine._settle(step)
    return float(start.elapsed_time(end)) / 1_000 / UNPAUSED_STEPS


def bytes_moved(model: FalconMamba, num_rows: int) -> int:
    """The bytes of a step: the weights as stored, once, and each row's state in and out."""
    config = model.config
    states = 2 * num_rows * config.state_bytes(model.dtype.itemsize)
    table = 0 if config.tie_word_embeddings else model.backbone.embeddings.weight.nbytes
    return weights_bytes(model) - table + states


def measure_batch(
    model: FalconMamba, num_rows: int, *, steps: int, read_bytes_per_s: float
) -> dict[str, Any]:
    engine = engine_over(model, max_running=num_rows)
    add_sequences(engine, num_rows, prompt_tokens=32)
    seconds = step_s(engine, num_rows, steps=steps)
    busy_s = unpaused_step_s(engine)
    moved = bytes_moved(model, num_rows)
    return {
        "rows": num_rows,
        "step_ms": 1_000 * seconds,
        "tokens_per_s": num_rows / seconds,
        "bytes_per_s": moved / seconds,
        "share_of_roofline": moved / seconds / read_bytes_per_s,
        "idle_share": None if busy_s is None else max(0.0, 1 - busy_s / seconds),
    }


def measure_peers(
    model: FalconMamba, batches: list[int], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Tokens a second of each peer at each batch, and how many times as fast we are."""
    theirs = peers.transformers_over(model)
    programs: dict[str, Callable[[int], float]] = {
        "transformers generate": lambda num: peers.transformers_decode(theirs, num)
    }
    if peers.HAS_MAMBA_SSM:
        programs["mamba-ssm generate, CUDA graph"] = lambda num: peers.mamba_ssm_decode(model, num)
    ours = {row["rows"]: row["tokens_per_s"] for row in rows if row["weights"] == "none"}
    found = []
    for program, decode in programs.items():
        for num_rows in batches:
            rate = decode(num_rows)
            ratio = ours[num_rows] / rate
            found.append(
                {"program": program, "rows": num_rows, "tokens_per_s": rate, "we_are": ratio}
            )
    return found


def add_peers(table: Table, found: list[dict[str, Any]]) -> None:
    for peer in found:
        name = f"{peer['rows']}, {peer['program']}"
        times = f"we are {peer['we_are']:.1f} times as fast"
        table.add("bf16", name, "", f"{peer['tokens_per_s']:.1f}", "", times, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--weights", nargs="+", default=["none", "int8", "nf4"], help="none, int8, nf4 or fp4"
    )
    parser.add_argument("--peers", action="store_true", help="also measure the peers")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    roofline = measure(device)
    ops = select_ops(device, options.kernels)
    make = random_7b if device.type == "cuda" else bundled_model
    model = make(ops, device, torch.bfloat16)
    read = roofline.read_bytes_per_s
    facts = about("decode", device, ops) | {"reads": f"{read / 1e9:.0f} GB/s"}
    table = Table("weights", "rows", "step ms", "tok/s", "GB/s", "of roofline", "idle")
    rows = []
    for form in forms(options.weights, device):
        for num_rows in options.batch:
            row = measure_batch(
                in_form(model, form), num_rows, steps=options.steps, read_bytes_per_s=read
            )
            rows.append({"weights": form, **row})
            table.add(
                "bf16" if form == "none" else form,
                str(num_rows),
                f"{row['step_ms']:.3f}",
                f"{row['tokens_per_s']:.1f}",
                f"{row['bytes_per_s'] / 1e9:.0f}",
                f"{row['share_of_roofline']:.1%}",
                "" if row["idle_share"] is None else f"{row['idle_share']:.1%}",
            )
    result: dict[str, Any] = {"benchmark": "decode", "read_bytes_per_s": read, "rows": rows}
    if device.type == "cuda":
        result["peak_gpu_bytes"] = torch.cuda.max_memory_reserved()
    if options.peers:
        batches = [num_rows for num_rows in PEER_BATCHES if num_rows in options.batch]
        result["peers"] = measure_peers(model, batches, rows)
        add_peers(table, result["peers"])
    finish("Decode", facts, table, result, options.save)


if __name__ == "__main__":
    main()
