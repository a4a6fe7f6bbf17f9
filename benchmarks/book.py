"""A book that many ask at once: the time to the first token, with a book and without any.

    python -m benchmarks.book [--tokens 100000] [--readers 32] [--rounds 5] [--save NAME]

On a GPU the real 7B shape with random weights in bf16, elsewhere the bundled model. A text is read
once. Then all readers ask it at the same time, each a question of 64 tokens that begins from the
book's state; and, for comparison, the same questions without a book, and one reader who reads the
text again, as every other server does with an evicted cache. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from array import array
from dataclasses import replace

import torch

from benchmarks.context import finish_all, random_ids
from benchmarks.decode import SAMPLING, engine_over
from benchmarks.lib.models import bundled_model, random_7b
from benchmarks.lib.report import Table, about, finish
from benchmarks.prefill import peak_bytes
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Admitted, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.ops.select import select_ops

QUESTION_TOKENS = 64
BOOK = "book"
_seq_ids = itertools.count()


def sequence(prompt: array[int], *, new_tokens: int, session_id: str | None = None) -> Sequence:
    return Sequence(
        seq_id=next(_seq_ids),
        prompt_token_ids=prompt,
        sampling=replace(SAMPLING, max_new_tokens=new_tokens),
        seed=0,
        session_id=session_id,
        begins_from=BOOK,
    )


def read_book(engine: Engine, ids: array[int]) -> float:
    """Read all of the ids into the book's state; seconds."""
    started_s = time.perf_counter()
    engine.add(sequence(ids + ids[:1], new_tokens=0, session_id=BOOK))
    finish_all(engine)
    return time.perf_counter() - started_s


def first_tokens_s(engine: Engine, prompts: list[array[int]]) -> tuple[list[float], list[int]]:
    """All prompts at once: the seconds to each one's first token, and what each has reused."""
    started_s = time.perf_counter()
    for prompt in prompts:
        engine.add(sequence(prompt, new_tokens=2))
    seconds: dict[int, float] = {}
    reused: list[int] = []
    while engine.has_work:
        events = engine.step()
        now_s = time.perf_counter() - started_s
        for event in events:
            if isinstance(event, Sampled):
                seconds.setdefault(event.seq_id, now_s)
            elif isinstance(event, Admitted):
                reused.append(event.num_reused_tokens)
    return list(seconds.values()), reused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000, help="of the book")
    parser.add_argument("--readers", type=int, default=32, help="who ask at the same time")
    parser.add_argument("--rounds", type=int, default=5, help="with a book, and without one")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, options.kernels)
    model = (random_7b if device.type == "cuda" else bundled_model)(ops, device, torch.bfloat16)
    engine = engine_over(model, max_running=options.readers)
    # Arrays, as the service has them: packing a list of 100,000 ids takes 2 ms.
    ids = array("i", random_ids(engine, options.tokens))
    asked = array("i", random_ids(engine, QUESTION_TOKENS * options.readers))
    questions = [asked[at :: options.readers] for at in range(options.readers)]
    first_tokens_s(engine, questions)  # warms up
    read_s = read_book(engine, ids)
    bytes_before, peak_before = engine.snapshots.num_bytes, peak_bytes(device)
    alone: list[float] = []
    on_book: list[float] = []
    reused: set[int] = set()
    for _ in range(options.rounds):  # in turns, so that a busy moment meets both
        alone.append(statistics.median(first_tokens_s(engine, questions)[0]))
        seconds, known = first_tokens_s(engine, [ids + question for question in questions])
        on_book.append(statistics.median(seconds))
        reused.update(known)
    bytes_after, peak_after = engine.snapshots.num_bytes, peak_bytes(device)
    engine.forget(BOOK)
    again_s = first_tokens_s(engine, [ids + questions[0]])[0][0]
    ratios = sorted(book / none for book, none in zip(on_book, alone, strict=True))
    result = {
        "benchmark": "book",
        "tokens": options.tokens,
        "readers": options.readers,
        "read_s": read_s,
        "ttft_without_s": statistics.median(alone),
        "ttft_on_book_s": statistics.median(on_book),
        "ttft_reading_again_s": again_s,
        "ratios": ratios,
        "reused_tokens": sorted(reused),
        "state_bytes_added_by_readers": bytes_after - bytes_before,
        "peak_bytes_added_by_readers": peak_after - peak_before,
    }
    table = Table("what", "first token ms", "÷ without")
    without_s = statistics.median(alone)
    for what, seconds_of in (
        (f"{options.readers} readers without a book", without_s),
        (f"{options.readers} readers on a book of {options.tokens:,}", statistics.median(on_book)),
        ("one reader who reads it again", again_s),
    ):
        table.add(what, f"{1_000 * seconds_of:.1f}", f"{seconds_of / without_s:.2f}")
    facts = about("book", device, ops) | {
        "reading": f"{read_s:.1f} s once, {options.tokens / read_s:.0f} tok/s",
        "memory": f"the readers added {(bytes_after - bytes_before) / 1e6:.1f} MB of states",
    }
    finish("Book", facts, table, result, options.save)


if __name__ == "__main__":
    main()
