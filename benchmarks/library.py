"""How long the library takes over many conversations: a page of the list, a search, a turn.

    python -m benchmarks.library [--conversations 100000] [--save NAME]

Conversations of two messages, in SQLite, of one owner; words as common as words are (Zipf). Reads
are the median and the slowest of some rounds. The limit is 50 ms for a list and a search.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from itertools import accumulate
from pathlib import Path

import sqlalchemy

from benchmarks.lib.report import Table, finish, machine
from falcon_mamba_app.library import (
    ConversationRecord,
    Library,
    MessageRecord,
    Place,
    ReplyEnd,
    Tree,
    new_id,
)

OWNER = "this machine"
NUM_MESSAGES = 2
WORDS_A_MESSAGE = 25
VOCABULARY = 20_000
BATCH = 1_000
LIMIT_MS = 50.0


@dataclass(frozen=True, slots=True)
class Timing:
    """One call, over some rounds."""

    what: str
    median_ms: float
    slowest_ms: float
    found: int


def conversations(number: int, rng: random.Random) -> Iterator[Tree]:
    """Made-up ones; each has one word that no other has."""
    words = [f"w{i:x}" for i in range(VOCABULARY)]
    weights = list(accumulate(1 / (i + 1) for i in range(VOCABULARY)))
    for at in range(number):
        created_s = 1_700_000_000.0 + at
        messages = [
            MessageRecord(
                id=f"{at}-{i}",
                conversation_id=str(at),
                parent_id=f"{at}-{i - 1}" if i else None,
                role="user" if i % 2 == 0 else "assistant",
                text=" ".join(rng.choices(words, cum_weights=weights, k=WORDS_A_MESSAGE)),
                created_s=created_s + i,
                num_tokens=WORDS_A_MESSAGE if i % 2 else None,
            )
            for i in range(NUM_MESSAGES)
        ]
        record = ConversationRecord(
            id=str(at),
            owner=OWNER,
            title=f"Conversation unique{at} about {messages[0].text[:30]}",
            folder=f"folder {at % 50}" if at % 10 == 0 else "",
            is_pinned=at % 10_000 == 0,
            is_archived=at % 20 == 0,
            created_s=created_s,
            updated_s=created_s,
            head_id=messages[-1].id,
        )
        yield Tree(record, tuple(messages))


async def fill(library: Library, number: int) -> float:
    """Seconds to bring so many conversations in."""
    started_s = time.perf_counter()
    made = conversations(number, random.Random(1))
    while batch := [tree for _, tree in zip(range(BATCH), made, strict=False)]:
        await library.adopt(OWNER, *batch)
    return time.perf_counter() - started_s


async def timed(what: str, call: Callable[[], Awaitable[int]], *, rounds: int) -> Timing:
    times, found = [], 0
    for _ in range(rounds):
        started_s = time.perf_counter()
        found = await call()
        times.append(1_000 * (time.perf_counter() - started_s))
    return Timing(what, statistics.median(times), max(times), found)


async def measure(library: Library, number: int, rounds: int) -> list[Timing]:
    """The calls that a page makes."""
    middle = (await library.search(OWNER, f"unique{number // 2}"))[0].conversation
    cursor = f"0:{middle.updated_s!r}:0"

    async def listed(**options: object) -> int:
        return len((await library.list(OWNER, **options)).conversations)  # type: ignore[arg-type]

    async def searched(words: str) -> int:
        return len(await library.search(OWNER, words))

    async def turn() -> int:
        question = await library.append(
            OWNER, middle.id, parent_id=middle.head_id, role="user", text="And then?"
        )
        reply = await library.begin_reply(OWNER, middle.id, parent_id=question.id, id=new_id("msg"))
        assert reply.generation is not None
        await library.extend_reply(OWNER, reply.generation, 0, "Then it ends.")
        await library.finish_reply(OWNER, reply.generation, ReplyEnd())
        return 2

    async def opened() -> int:
        return len((await library.tree(OWNER, middle.id)).messages)

    calls: list[tuple[str, Callable[[], Awaitable[int]]]] = [
        ("list: the first page", listed),
        ("list: a page in the middle", lambda: listed(cursor=cursor)),
        ("list: archived ones", lambda: listed(is_archived=True)),
        ("list: a folder", lambda: listed(folder="folder 20")),
        ("search: a title's only word", lambda: searched(f"unique{number // 3}")),
        ("search: the most common word", lambda: searched("w0")),
        ("search: the beginning of many words", lambda: searched("w1")),
        ("search: two common words", lambda: searched("w1 w2")),
        ("search: two words, one of them rare", lambda: searched("w3 w4e10")),
        ("search: a rare word", lambda: searched("w4e1f")),
        ("search: a word that is not there", lambda: searched("nowhere")),
        ("open a conversation", opened),
        ("write a turn, one piece", turn),
    ]
    return [await timed(what, call, rounds=rounds) for what, call in calls]


def show(timings: list[Timing]) -> Table:
    table = Table("call", "median, ms", "slowest, ms", "found", words=1)
    for one in timings:
        table.add(one.what, f"{one.median_ms:.1f}", f"{one.slowest_ms:.1f}", str(one.found))
    return table


async def run(folder: Path, number: int, rounds: int) -> tuple[list[Timing], float, float]:
    """The timings, the seconds to fill the library, and the file's size in MB."""
    library = await Library.open(Place(folder=folder))
    filled_s = await fill(library, number)
    timings = await measure(library, number, rounds)
    await library.close()
    return timings, filled_s, sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--save")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        timings, filled_s, size_mb = asyncio.run(
            run(Path(folder), options.conversations, options.rounds)
        )
    table = show(timings)
    reads = [one for one in timings if one.what.startswith(("list", "search"))]
    worst = max(reads, key=lambda one: one.median_ms)
    line = (
        f"{options.conversations:,} conversations, {size_mb:,.0f} MB, brought in within"
        f" {filled_s:.0f} s. Slowest of lists and searches: {worst.median_ms:.1f} ms"
        f" ({worst.what}); the limit is {LIMIT_MS:.0f} ms."
    )
    print(line)
    facts = {
        "device": machine(),
        "versions": f"SQLite {sqlite3.sqlite_version}, SQLAlchemy {sqlalchemy.__version__}",
        "command": " ".join(["python -m benchmarks.library", *sys.argv[1:]]),
        "date": str(date.today()),
        "filled": line,
    }
    figures = {"timings": [asdict(one) for one in timings], "size_mb": size_mb}
    finish("The library over many conversations", facts, table, figures, options.save)


if __name__ == "__main__":
    main()
