"""Reading prompts through `Engine.step()`: tokens per second, and the peak memory while reading.

    python -m benchmarks.prefill [--lengths 1024 8192 32768] [--chunk 2048] [--peers] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. Prints a table
and one JSON line. Peak memory must not depend on the length. With `--peers` transformers reads one
prompt in its one forward pass and, where it is installed, mamba-ssm does.
"""

from __future__ import annotations

import argparse
import gc
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.decode import SAMPLING, engine_over
from benchmarks.lib import peers
from benchmarks.lib.models import bundled_model, forms, in_form, random_7b, resident_bytes
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops


def read_prompt(engine: Engine, num_tokens: int) -> float:
    """Seconds from adding a prompt to its first sampled token."""
    generator = torch.Generator().manual_seed(num_tokens)
    ids = torch.randint(20, engine.model.config.vocab_size, (num_tokens,), generator=generator)
    seq = Sequence(seq_id=0, prompt_token_ids=ids.tolist(), sampling=SAMPLING, seed=0)
    engine.add(seq)
    start = time.perf_counter()
    while not any(isinstance(event, Sampled) for event in engine.step()):
        pass
    seconds = time.perf_counter() - start
    engine.abort(0)
    engine.step()
    return seconds


def peak_bytes(device: torch.device) -> int:
    """Since the last call: on a GPU all that torch had taken of it, elsewhere the process's memory.

    What is allocated would leave out what a captured pass works in.
    """
    if device.type != "cuda":
        return _peak_of_process()
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    return peak


def _peak_of_process() -> int:
    """Linux' high-water mark of what is resident, which is then set back."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(kilobytes) * 1024


def bytes_of_others(model: FalconMamba) -> int:
    """What torch holds of a GPU that is not the model's: to be taken off its peaks."""
    gc.collect()
    if model.device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() - resident_bytes(model)


def measure(model: FalconMamba, chunk: int, lengths: list[int]) -> Iterator[dict[str, Any]]:
    """Speed and peak for each length; on a GPU the peak is as if this model were alone there."""
    of_others = bytes_of_others(model)
    engine = engine_over(model, max_running=1, max_prefill_tokens=chunk)
    read_prompt(engine, chunk + 1)  # compiles and warms up
    peak_bytes(model.device)
    for length in lengths:
        seconds = read_prompt(engine, length)
        yield {
            "chunk": chunk,
            "tokens": length,
            "tokens_per_s": length / seconds,
            "peak_bytes": peak_bytes(model.device) - of_others,
        }


def measure_peers(model: FalconMamba, table: Table) -> list[dict[str, Any]]:
    """Tokens a second of the peers, over a prompt short enough for them to end in seconds."""
    is_fast = peers.has_fast_kernels()
    num_tokens = 8_192 if is_fast else 256
    name = "transformers" + ("" if is_fast else " without mamba-ssm's kernels")
    peak_bytes(model.device)
    rate = peers.transformers_prefill(peers.transformers_over(model), num_tokens)
    found: list[dict[str, Any]] = [{"program": name, "tokens": num_tokens, "tokens_per_s": rate}]
    found[0]["peak_bytes"] = peak_bytes(model.device)
    if peers.HAS_MAMBA_SSM:
        rate = peers.mamba_ssm_prefill(model, num_tokens)
        found.append({"program": "mamba-ssm", "tokens": num_tokens, "tokens_per_s": rate})
        found[1]["peak_bytes"] = peak_bytes(model.device)
    for peer in found:
        peak = f"{peer['peak_bytes'] / 1e9:.3f}"
        table.add("bf16", peer["program"], str(num_tokens), f"{peer['tokens_per_s']:.0f}", peak)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_024, 8_192, 32_768])
    parser.add_argument("--chunk", type=int, nargs="+", default=[2_048])
    parser.add_argument(
        "--weights", nargs="+", default=["none", "int8", "nf4"], help="none, int8, nf4 or fp4"
    )
    parser.add_argument("--peers", action="store_true", help="also measure the peers")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, options.kernels)
    make = random_7b if device.type == "cuda" else bundled_model
    model = make(ops, device, torch.bfloat16)
    table = Table("weights", "chunk", "tokens", "tok/s", "peak GB")
    rows: list[dict[str, Any]] = []
    for form in forms(options.weights, device):
        for chunk in options.chunk:
            for row in measure(in_form(model, form), chunk, options.lengths):
                rows.append({"weights": form, **row})
                table.add(
                    "bf16" if form == "none" else form,
                    str(chunk),
                    str(row["tokens"]),
                    f"{row['tokens_per_s']:.0f}",
                    f"{row['peak_bytes'] / 1e9:.3f}",
                )
    result: dict[str, Any] = {"benchmark": "prefill", "rows": rows}
    if options.peers:
        result["peers"] = measure_peers(model, table)
    finish("Prefill", about("prefill", device, ops), table, result, options.save)


if __name__ == "__main__":
    main()
