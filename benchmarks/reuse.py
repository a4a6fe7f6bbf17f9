"""What it costs, and what it saves, that requests begin from states of earlier ones unasked.

    python -m benchmarks.reuse [--strangers 32] [--rounds 6] [--questions 100] [--save NAME]

The bundled model in this process. Strangers: so many requests at once, no two with a common
beginning, so there is nothing to reuse; rounds with reuse and rounds without take turns. They must
not be slower for it. Questions: one after the other behind the same system message of some 2,000
tokens; how many tokens are read, and how long it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import (
    Conversation,
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenIds,
)
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings

PROMPT_TOKENS, REPLY_TOKENS = 100, 16
SENTENCE = "You are a kind friend who remembers every name and every place. "
SYSTEM = SENTENCE * 145  # some 2,000 tokens of the bundled model's
FIRST_ID, NUM_IDS = 100, 8_000  # plain tokens
NUMBERS = itertools.count()


async def finished(service: LocalService, request: GenerationRequest) -> Finished:
    """The end of one reply."""
    async for event in service.generate(request):
        last = event
    assert isinstance(last, Finished), last
    return last


async def round_s(service: LocalService, num_strangers: int, *, reuse: bool) -> float:
    """Seconds until so many strangers have their replies."""
    sampling = SamplingParams(temperature=0, max_new_tokens=REPLY_TOKENS, ignore_eos=True)
    requests = []
    for _ in range(num_strangers):
        number = next(NUMBERS)
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(FIRST_ID, NUM_IDS, (PROMPT_TOKENS,), generator=generator).tolist()
        requests.append(
            GenerationRequest(
                prompt=TokenIds(ids),
                sampling=sampling,
                reuse_id=f"stranger {number}" if reuse else None,
                owner=f"stranger {number}",
            )
        )
    started_s = time.perf_counter()
    await asyncio.gather(*(finished(service, request) for request in requests))
    return time.perf_counter() - started_s


async def strangers(service: LocalService, number: int, rounds: int) -> tuple[float, float]:
    """Median seconds of a round without reuse, and the median ratio of speed with it."""
    without, ratios = [], []
    for place in range(rounds + 1):
        order = (False, True) if place % 2 else (True, False)
        took = {reuse: await round_s(service, number, reuse=reuse) for reuse in order}
        if place:  # the first pair warms up
            without.append(took[False])
            ratios.append(took[False] / took[True])
    return statistics.median(without), statistics.median(ratios)


async def questions(service: LocalService, number: int, reuse_id: str | None) -> tuple[int, float]:
    """The tokens that are read for so many questions, and the seconds it takes."""
    num_read, started_s = 0, time.perf_counter()
    for place in range(number):
        question = Message("user", f"What about number {place}?")
        end = await finished(
            service,
            GenerationRequest(
                prompt=Conversation([Message("system", SYSTEM), question]),
                sampling=SamplingParams(temperature=0, max_new_tokens=1),
                reuse_id=reuse_id,
            ),
        )
        num_read += (end.prompt_tokens or 0) - (end.reused_tokens or 0)
    return num_read, time.perf_counter() - started_s


async def run(options: argparse.Namespace) -> None:
    settings = EngineSettings(max_running=options.strangers)
    service = build_local(ModelSettings(model="nano", device="cpu", dtype="float32"), settings)
    await service.start()
    table = Table("requests", "without reuse", "with reuse", "speed with it")
    try:
        round_time_s, ratio = await strangers(service, options.strangers, options.rounds)
        each = f"{PROMPT_TOKENS} + {REPLY_TOKENS} tokens each"
        what = f"{options.strangers} strangers at once, {each}"
        table.add(what, f"{round_time_s:.2f} s", f"{round_time_s / ratio:.2f} s", f"{ratio:.3f}")
        num_cold, cold_s = await questions(service, options.cold_questions, None)
        num_warm, warm_s = await questions(service, options.questions, "one owner")
        per_question = cold_s / options.cold_questions / (warm_s / options.questions)
        table.add(
            f"questions after {len(SYSTEM):,} characters of system message",
            f"{num_cold / options.cold_questions:,.0f} tokens read a question",
            f"{num_warm:,} tokens read in all for {options.questions}",
            f"{per_question:.1f}",
        )
    finally:
        await service.close()
    device = torch.device("cpu")
    facts = {**about("reuse", device, select_ops(device, "auto")), "machine": machine()}
    result = {
        "strangers": {"number": options.strangers, "without_s": round_time_s, "speed": ratio},
        "questions": {
            "number": options.questions,
            "tokens_read": num_warm,
            "tokens_read_each_without": num_cold / options.cold_questions,
            "speed": per_question,
        },
    }
    finish("States that requests find unasked", facts, table, result, options.save)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strangers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--cold-questions", type=int, default=5)
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
