"""What drafting by prompt lookup gains, and that it changes no reply and costs nothing elsewhere.

    python -m benchmarks.speculation [--tokens 120] [--rounds 6] [--save NAME]

The bundled model on the CPU, one reply at a time, with and without drafts in turns. Three kinds of
work: replies that repeat JSON they were given; any talk, where there is little to draft; and a
random prompt with every draft right, which is the most that a pass over four tokens can gain. That
last one replaces the lookup: it says what verification costs, not how often drafts are accepted.
Time is of the tokens after the first. Prints a table and one JSON line; exit status 1 where a reply
differed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence as SequenceABC
from typing import Any

import torch

from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.engine.runner.prompt_lookup import PromptLookup
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.offline import OfflineModel
from falcon_mamba_app.protocol import Conversation, Message, SamplingParams
from falcon_mamba_app.settings import EngineSettings

TALK = (
    "Tell me a story about a cat and a lighthouse.",
    "What is the capital of France, and what is a good thing to eat there?",
    "I had a long day at work. What should I do tonight?",
)
WORDS = ("river", "stone", "paper", "candle", "window", "garden", "winter", "silver")


class KnownReply(PromptLookup):
    """Drafts the reply that is known to come."""

    def __init__(self, max_tokens: int) -> None:
        super().__init__(max_tokens)
        self._max = max_tokens
        self.reply: list[int] = []

    def draft(self, seq: Sequence) -> list[int]:
        super().draft(seq)
        done, limit = len(seq.output_token_ids), seq.sampling.max_new_tokens
        return self.reply[done : done + min(self._max, limit - done - 1)]


def echoes(number: int) -> list[str]:
    """Requests to repeat an object of random words."""
    rng = random.Random(1)
    chosen = [
        {key: rng.choice(WORDS) for key in rng.sample(WORDS, rng.randint(3, 5))}
        for _ in range(number)
    ]
    return [f"Repeat this JSON: {json.dumps(each)}" for each in chosen]


def written(
    engine: Engine, prompt: list[int], sampling: SamplingParams
) -> tuple[list[int], float, int, int]:
    """The reply, the seconds after its first token, and the tokens drafted and accepted."""
    seq = Sequence(seq_id=0, prompt_token_ids=prompt, sampling=sampling, seed=7)
    engine.add(seq)
    began, num_drafted, num_accepted = 0.0, 0, 0
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Sampled):
                began = began or time.perf_counter()
                num_drafted += event.token.num_drafted
                num_accepted += event.token.was_drafted
    return seq.output_token_ids, time.perf_counter() - began, num_drafted, num_accepted


def measure(
    engines: tuple[Engine, Engine],
    prompts: list[list[int]],
    sampling: SamplingParams,
    *,
    rounds: int,
    known: KnownReply | None = None,
) -> dict[str, Any]:
    """Both engines over all prompts, in turns; the ratio is the median of the rounds'."""
    plain_s, drafted_s, ratios = [], [], []
    num_tokens, num_drafted, num_accepted, are_equal = 0, 0, 0, True
    for _ in range(rounds):
        seconds = [0.0, 0.0]
        for prompt in prompts:
            reply, plain, _, _ = written(engines[0], prompt, sampling)
            if known is not None:
                known.reply = reply
            other, drafted, of_draft, accepted = written(engines[1], prompt, sampling)
            are_equal &= reply == other
            seconds[0] += plain
            seconds[1] += drafted
            num_tokens += len(reply) - 1
            num_drafted += of_draft
            num_accepted += accepted
        plain_s.append(seconds[0])
        drafted_s.append(seconds[1])
        ratios.append(seconds[0] / seconds[1])
    each = num_tokens / rounds
    return {
        "plain_tokens_per_s": each / statistics.median(plain_s),
        "drafted_tokens_per_s": each / statistics.median(drafted_s),
        "speed": statistics.median(ratios),
        "drafted": num_drafted,
        "accepted": num_accepted,
        "tokens": num_tokens,
        "are_equal": are_equal,
    }


def main(arguments: SequenceABC[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=120, help="the longest reply")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args(arguments)
    plain, drafting = (
        OfflineModel(
            "nano", device="cpu", dtype=options.dtype, engine=EngineSettings(speculation=mode)
        )
        for mode in ("off", "auto")
    )
    engines = plain.engine, drafting.engine

    def ids(words: str) -> list[int]:
        return list(plain.encoder.encode(Conversation((Message("user", words),))))

    at_rest = SamplingParams(temperature=0.0, max_new_tokens=options.tokens)
    seeded = SamplingParams(temperature=0.7, top_p=0.9, max_new_tokens=options.tokens)
    endless = SamplingParams(temperature=0.7, max_new_tokens=options.tokens, ignore_eos=True)
    rounds = options.rounds
    results = {
        "JSON repeated": measure(engines, [*map(ids, echoes(6))], at_rest, rounds=rounds),
        "JSON repeated, seeded": measure(engines, [*map(ids, echoes(6))], seeded, rounds=rounds),
        "talk, seeded": measure(engines, [*map(ids, TALK)], seeded, rounds=rounds),
    }
    num_verified = plain.model.ops.num_verifiable_tokens
    known = KnownReply(num_verified - 1)
    drafting.engine.draft_by(known)
    prompts = [ids(words) for words in TALK[:1]]
    results["every draft right"] = measure(engines, prompts, endless, rounds=rounds, known=known)
    table = Table("work", "tokens/s", "with drafts", "ratio", "accepted of drafted", words=1)
    for name, row in results.items():
        table.add(
            name,
            f"{row['plain_tokens_per_s']:.0f}",
            f"{row['drafted_tokens_per_s']:.0f}",
            f"{row['speed']:.2f}",
            f"{row['accepted']:,} of {row['drafted']:,}",
        )
    facts = about("speculation", torch.device("cpu"), plain.model.ops)
    facts |= {"machine": machine(), "dtype": str(plain.model.dtype).removeprefix("torch.")}
    finish("Drafts by prompt lookup", facts, table, {"results": results}, options.save)
    return int(not all(row["are_equal"] for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
