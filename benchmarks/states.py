"""Stored states: a turn after a restart, decode beside their writing, and memory that stays flat.

    python -m benchmarks.states [--tokens 2000] [--rows 32] [--turns 200] [--conversations 2000]
        [--budget-states 64] [--store PLACE] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model in fp32. The
states lie in a temporary folder, or wherever --store says. "After a restart" finds the file, reads,
checks and unpacks it and puts it into host memory before the turn. Decode runs in turns without and
with a state written every second, or as often as --write-every-s says. Memory is the process's own.
Prints a table and one JSON line; exit status 1 where memory grew by two states or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import Any

import psutil
import torch

from benchmarks.context import finish_all, first_token_s
from benchmarks.decode import add_sequences, engine_over
from benchmarks.lib.models import bundled_model, random_7b
from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states import file
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import SamplingParams
from falcon_mamba_app.service.local.codec import StateCodec
from falcon_mamba_app.state_store.files import StateFiles
from falcon_mamba_app.state_store.objects import open_store
from falcon_mamba_app.state_store.sealing import Seal

REPEATS, WARM_UP_TURNS, ROUNDS = 7, 10, 5
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=2, ignore_eos=True)


def codec_of(engine: Engine) -> StateCodec:
    model = engine.model
    print_of = file.fingerprint(model)
    return StateCodec(model.config, model.dtype, model.device, print_of, print_of)


def files_in(place: str, codec: StateCodec, secret: str | None = None) -> StateFiles:
    return StateFiles(open_store(place), Seal(secret), model=codec.model, max_bytes=2**40)


def turn(engine: Engine, history: list[int], session_id: str, seq_id: int) -> float:
    """Add a message and its reply to the history; seconds to the reply's first token."""
    ids = torch.randint(20, engine.model.config.vocab_size, (12,), generator=_draws(seq_id))
    history += ids.tolist()
    seq = Sequence(
        seq_id=seq_id,
        prompt_token_ids=list(history),
        sampling=GREEDY,
        seed=0,
        session_id=session_id,
    )
    engine.add(seq)
    seconds = first_token_s(engine)
    finish_all(engine)
    history += seq.output_token_ids
    return seconds


def _draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def newest(engine: Engine, session_id: str) -> Snapshot:
    snapshot = engine.snapshots.newest(session_id)
    assert snapshot is not None
    return snapshot


def measure_turns(engine: Engine, place: str, num_tokens: int) -> dict[str, float]:
    """Median milliseconds to the first token: from host memory, from the store, from nothing."""
    codec = codec_of(engine)
    files = files_in(place, codec)
    vocabulary = engine.model.config.vocab_size
    start = torch.randint(20, vocabulary, (num_tokens,), generator=_draws(1)).tolist()
    turn(engine, history := list(start), "s", 1)
    snapshot, before = newest(engine, "s"), len(history)
    wrote_s = time.perf_counter()
    files.write("s", snapshot.packed_token_ids, lambda: codec.to_bytes(snapshot, []))
    wrote_s = time.perf_counter() - wrote_s
    times: dict[str, list[float]] = {"before": [], "after": [], "cold": [], "fetch": []}
    for number in range(REPEATS):
        for kind in ("before", "after", "cold"):
            if kind == "cold" and number >= 2:
                continue
            history = history[:before]
            engine.snapshots.forget("s")
            if kind == "before":
                engine.snapshots.put("s", snapshot.packed_token_ids, snapshot.state)
            fetched_s = time.perf_counter()
            if kind == "after":
                _fetch(files_in(place, codec), codec, engine, history)
            fetched_s = time.perf_counter() - fetched_s
            times[kind].append(fetched_s + turn(engine, history, "s", 10 + number))
            if kind == "after":
                times["fetch"].append(fetched_s)
    found = {f"{kind}_ms": 1e3 * statistics.median(values) for kind, values in times.items()}
    return found | {"write_ms": 1e3 * wrote_s}


def _fetch(files: StateFiles, codec: StateCodec, engine: Engine, history: list[int]) -> None:
    """As another process does it, which has listed nothing yet."""
    state = files.longest_prefix("s", pack_token_ids([*history, 0]))
    data = files.read(state) if state is not None else None
    assert data is not None, "the state was written just now"
    snapshot = codec.staged(codec.from_bytes(data)[0])
    engine.snapshots.put("s", snapshot.packed_token_ids, snapshot.state)


def measure_decode(
    engine: Engine, place: str, num_rows: int, *, seconds: float, every_s: float
) -> dict[str, float]:
    """Steps per second of all rows, without and with states that are written meanwhile."""
    codec = codec_of(engine)
    files = files_in(place, codec)
    snapshot = newest(engine, "s")
    add_sequences(engine, num_rows, prompt_tokens=32)
    rates: dict[str, list[float]] = {"alone": [], "writing": []}
    num_written = 0
    for round_number in range(ROUNDS):
        for kind in ("alone", "writing"):
            is_over = threading.Event()

            def write(number: int = round_number, is_over: threading.Event = is_over) -> None:
                nonlocal num_written
                while not is_over.wait(every_s):
                    ids = snapshot.packed_token_ids + pack_token_ids([number, num_written])
                    files.write("writing", ids, lambda: codec.to_bytes(snapshot, []))
                    num_written += 1

            writer = threading.Thread(target=write) if kind == "writing" else None
            if writer is not None:
                writer.start()
            started_s, num_steps = time.perf_counter(), 0
            while time.perf_counter() - started_s < seconds:
                engine.step()
                num_steps += 1
            rates[kind].append(num_steps / (time.perf_counter() - started_s))
            is_over.set()
            if writer is not None:
                writer.join()
    for seq_id in range(num_rows):
        engine.abort(seq_id)
    finish_all(engine)
    found = {f"steps_per_s_{kind}": statistics.median(values) for kind, values in rates.items()}
    lost = 1 - found["steps_per_s_writing"] / found["steps_per_s_alone"]
    return found | {"lost_share": lost, "states_written": num_written}


def measure_memory(engine: Engine, num_turns: int, num_conversations: int) -> dict[str, float]:
    """How many states the process grew by: over turns of one conversation, over conversations."""
    for number in range(2):
        history: list[int] = []
        for at in range(min(WARM_UP_TURNS, num_turns)):
            turn(engine, history, f"warm {number}", at)
    state_bytes = newest(engine, "warm 1").state.nbytes
    engine.snapshots.forget("warm 0")
    before = _resident_bytes()
    history = []
    for at in range(num_turns):
        turn(engine, history, "long", at)
    of_turns = _resident_bytes() - before
    full = engine.snapshots.max_bytes // state_bytes
    for at in range(full):  # the budget is full then, whatever comes
        turn(engine, [], f"first {at}", at)
    before = _resident_bytes()
    for at in range(num_conversations):
        turn(engine, [], f"short {at}", at)
    of_conversations = _resident_bytes() - before
    return {
        "states_per_turns": of_turns / state_bytes,
        "states_per_conversations": of_conversations / state_bytes,
        "states_held": len(engine.snapshots),
        "state_bytes": state_bytes,
    }


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2_000, help="read before the turn")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of decode, ten times")
    parser.add_argument("--write-every-s", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--conversations", type=int, default=2_000)
    parser.add_argument("--budget-states", type=int, default=64, help="held in host memory")
    parser.add_argument("--store", help="a folder or an address, as --state-store takes it")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, "auto")
    if device.type == "cuda":
        model = random_7b(ops, device, torch.bfloat16)
    else:  # many CPUs have no bfloat16 of their own
        model = bundled_model(ops, device, torch.float32)
    engine = engine_over(model, max_running=options.rows + 1)
    with ExitStack() as stack:
        place = options.store or stack.enter_context(tempfile.TemporaryDirectory())
        figures: dict[str, Any] = measure_turns(engine, place, options.tokens)
        figures |= measure_decode(
            engine, place, options.rows, seconds=options.seconds, every_s=options.write_every_s
        )
    engine.snapshots.max_bytes = options.budget_states * newest(engine, "s").nbytes
    figures |= measure_memory(engine, options.turns, options.conversations)
    table = Table("what", "measured", "aim")
    ratio, cold = (figures[f"{kind}_ms"] / figures["before_ms"] for kind in ("after", "cold"))
    for name, value, aim in (
        (f"a turn after {options.tokens:,} tokens", f"{figures['before_ms']:.1f} ms", ""),
        ("the same after a restart", f"{figures['after_ms']:.1f} ms, {ratio:.2f} ×", ""),
        ("of it the file", f"{figures['fetch_ms']:.1f} ms", ""),
        ("the same read again", f"{figures['cold_ms']:.1f} ms, {cold:.2f} ×", ""),
        ("a state written", f"{figures['write_ms']:.1f} ms", ""),
        (f"decode of {options.rows} rows lost to writing", f"{figures['lost_share']:.1%}", "≤ 1 %"),
        (
            f"memory over {options.turns:,} turns of one conversation",
            f"{figures['states_per_turns']:+.2f} states",
            "< 2",
        ),
        (
            f"memory over {options.conversations:,} conversations, budget full",
            f"{figures['states_per_conversations']:+.2f} states",
            "< 2",
        ),
    ):
        table.add(name, value, aim)
    facts = about("states", device, ops) | {
        "machine": machine(),
        "state": f"{figures['state_bytes'] / 1e6:.2f} MB",
        "written": f"{figures['states_written']} states, one every {options.write_every_s:g} s",
    }
    finish("Stored states", facts, table, {"benchmark": "states", **figures}, options.save)
    grown = max(figures["states_per_turns"], figures["states_per_conversations"])
    return 1 if grown >= 2 else 0


if __name__ == "__main__":
    sys.exit(main())
