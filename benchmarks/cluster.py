"""Several copies behind one address: what they serve, what a conversation's move costs, and a kill.

    python -m benchmarks.cluster [--replicas 2] [--readers 8] [--lengths 1000 10000] [--save NAME]

Starts `falcon-mamba serve` with one copy and with several, each on a GPU of its own where there are
some (the 7B shape with random weights, written once to `--checkpoint`), else on a part of the cores
with the bundled model. Every reader is a session. Measures the start; tokens a second with
`--readers` a copy; what the parent's address adds to the first token; a turn that goes to another
copy after its state was published, against one that stays and one that is read again, with the
answers compared and `cached_tokens` as proof; and what readers see when a copy is killed. Prints a
table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch

from benchmarks.lib.checkpoint import write_random_7b
from benchmarks.lib.copies import Copies
from benchmarks.lib.readers import Reading, in_own_process, read, read_together
from benchmarks.lib.report import Table, about, finish, machine
from falcon_mamba_app.ops.select import select_ops

SENTENCE = "The old man and the dog went down to the river to see what the water had brought. "
TOKENS_A_SENTENCE = 19
QUESTION = {"role": "user", "content": "And what did they find there? Tell me all of it."}
GREEDY = {"temperature": 0, "max_tokens": 16, "ignore_eos": True}
REPEATS = 15


@contextmanager
def served(number: int, options: list[str]) -> Iterator[tuple[Copies, float]]:
    """This many copies, ready to serve, and the seconds until they were."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    # One copy runs behind a parent too, so that the comparison is fair.
    copies = Copies(
        folder / "log",
        *("--port=0", f"--replicas={number if number > 1 else 'auto'}", *options),
        *(f"--data-dir={folder}", f"--state-store={folder / 'states'}", "--state-idle-s=3600"),
        "--session-secret=only-for-this-measurement",
    )
    started_s = time.monotonic()
    try:
        copies.wait_until_ready(number)
        yield copies, time.monotonic() - started_s
    finally:
        copies.end()
        shutil.rmtree(folder)


def body(key: str, messages: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return {"messages": messages, "prompt_cache_key": key, **GREEDY, **more}


def long_text(num_tokens: int) -> list[dict[str, str]]:
    text = SENTENCE * max(1, num_tokens // TOKENS_A_SENTENCE)
    return [{"role": "user", "content": text}]


async def throughput(url: str, readers: int, tokens: int) -> float:
    """Tokens a second while all readers read."""
    bodies = [
        body(f"reader {n} of {readers}", [{"role": "user", "content": SENTENCE}], max_tokens=tokens)
        for n in range(readers)
    ]
    result = await in_own_process(read_together, url=url, bodies=bodies)
    return float(result["tokens_per_s"])


async def first_tokens_ms(behind: str, direct: str) -> tuple[float, float]:
    """Of a turn that finds its state in memory, behind the parent's address and at the copy's own:
    the medians of several, asked in turn.
    """
    asked = body("overhead", [{"role": "user", "content": SENTENCE}], max_tokens=1)
    pairs = [
        ((await read(behind, asked)).ttft_s, (await read(direct, asked)).ttft_s)
        for _ in range(REPEATS)
    ]
    return tuple(1_000 * median(times) for times in zip(*pairs, strict=True))


async def move(copies: Copies, num_tokens: int) -> dict[str, Any]:
    """The second turn of a conversation: at its copy, at another, and read again there."""
    home, other = (copies.own_urls[name] for name in ("1", "2"))
    key, messages = f"move {num_tokens}", long_text(num_tokens)
    first = await read(home, body(key, messages))
    async with httpx.AsyncClient(base_url=home, timeout=60) as http:
        started_s = time.perf_counter()
        answer = await http.post(f"/v1/sessions/{key}/state")
        publish_s = time.perf_counter() - started_s
    published = answer.json()["num_tokens"]
    turns = [*messages, {"role": "assistant", "content": first.text}, QUESTION]
    moved = await read(other, body(key, turns))
    stayed = await read(home, body(key, turns))
    again = await read(other, body(f"{key} again", turns, cache_prompt=False))
    return {
        "tokens": again.prompt_tokens,
        "publish_ms": 1_000 * publish_s,
        "published_tokens": published,
        **_told("moved", moved),
        **_told("stayed", stayed),
        **_told("read_again", again),
        "equals_stayed": moved.text == stayed.text,
        # Read in other chunks; in rounded arithmetic a near tie may fall the other way.
        "equals_read_again": moved.text == again.text,
    }


def _told(name: str, reading: Reading) -> dict[str, float]:
    return {f"{name}_ms": 1_000 * reading.ttft_s, f"{name}_cached": reading.reused_tokens}


async def kill(copies: Copies, readers: int, tokens: int) -> dict[str, Any]:
    """Kill a copy while readers read; each asks again at once when its reply breaks."""
    killed_s = 0.0

    async def go(number: int) -> tuple[bool, float]:
        """Whether the reply broke, and the seconds from the kill to the next one's first token."""
        asked = body(f"killed {number}", long_text(100), max_tokens=tokens)
        try:
            reading = await read(copies.url, asked)
            # A stream that ends without its last event has no count of tokens.
            if reading.num_tokens:
                return False, 0.0
        except (OSError, RuntimeError):
            pass
        after = await read(copies.url, {**asked, "max_tokens": 4})
        return True, after.times[0] - killed_s

    tasks = [asyncio.create_task(go(number)) for number in range(readers)]
    await asyncio.sleep(3.0)
    lives = copies.lives
    killed_s = time.perf_counter()
    copies.kill("1")
    seen = await asyncio.gather(*tasks)
    await asyncio.to_thread(copies.wait_until_ready, lives + 1)
    broken = [seconds for was_broken, seconds in seen if was_broken]
    return {
        "readers": readers,
        "broken": len(broken),
        "next_token_p50_s": median(broken) if broken else None,
        "next_token_max_s": max(broken, default=None),
        "copy_is_back_s": time.perf_counter() - killed_s,
    }


async def measure(given: argparse.Namespace, options: list[str]) -> tuple[Table, dict[str, Any]]:
    table = Table("measure", "one copy", f"{given.replicas} copies", "ratio", words=1)
    result: dict[str, Any] = {"replicas": given.replicas}
    rates: dict[int, float] = {}
    # One copy has room for the readers of all: those of a copy that is killed come to it.
    limit = [f"--max-running={given.replicas * max(given.readers)}", *options]
    one = {"CUDA_VISIBLE_DEVICES": "0"} if torch.cuda.is_available() else {}
    if torch.cuda.is_available():
        # The first start of all compiles kernels; the starts compared find them.
        with _environment(one), served(1, limit):
            pass
    with _environment(one), served(1, limit) as (copies, one_s):
        for readers in given.readers:
            rates[readers] = await throughput(copies.url, readers, given.tokens)
        behind, direct = await first_tokens_ms(copies.url, copies.own_urls["1"])
    with served(given.replicas, limit) as (copies, all_s):
        table.add("start, s", f"{one_s:.1f}", f"{all_s:.1f}", f"{all_s / one_s:.2f}")
        result |= {"start_one_s": one_s, "start_all_s": all_s}
        for readers in given.readers:
            both = await throughput(copies.url, given.replicas * readers, given.tokens)
            ratio = both / rates[readers]
            name = f"tokens/s, {readers} readers a copy"
            table.add(name, f"{rates[readers]:,.0f}", f"{both:,.0f}", f"{ratio:.2f}")
            result[f"tokens_per_s_{readers}"] = {"one": rates[readers], "all": both}
        added = behind - direct
        table.add("first token behind the parent, ms", f"{behind:.1f}", "", f"+{added:.1f} ms")
        result |= {"first_token_ms": behind, "first_token_direct_ms": direct}
        result["moves"] = [await move(copies, length) for length in given.lengths]
        for moved in result["moves"]:
            name = f"a turn after {moved['tokens']:,} tokens, ms: read again / moved"
            gain = moved["read_again_ms"] / moved["moved_ms"]
            cells = f"{moved['read_again_ms']:,.0f}", f"{moved['moved_ms']:,.0f}", f"{gain:.1f}"
            table.add(name, *cells)
            stayed = f"{moved['stayed_ms']:,.0f}"
            table.add(
                "  the same at its copy; publishing", stayed, f"{moved['publish_ms']:,.0f}", ""
            )
            equals = [name for name in ("stayed", "read_again") if moved[f"equals_{name}"]]
            equal = f"equal to {' and '.join(equals).replace('_', ' ') or 'neither'}"
            table.add("  cached tokens; answers", "0", f"{moved['moved_cached']:,}", equal)
        result["kill"] = found = await kill(
            copies, given.replicas * min(given.readers), 3 * given.tokens
        )
        table.add(
            "a copy killed: replies broken; next token, s",
            f"{found['broken']} of {found['readers']}",
            f"{found['next_token_p50_s'] or 0:.2f}",
            f"at most {found['next_token_max_s'] or 0:.2f}",
        )
    return table, result


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables of the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--replicas", type=int, default=2)
    readers, lengths = ([32, 64], [1_000, 10_000, 100_000]) if on_gpu else ([4], [1_000, 10_000])
    parser.add_argument("--readers", type=int, nargs="+", default=readers, help="a copy")
    parser.add_argument("--tokens", type=int, default=400 if on_gpu else 100, help="of each reply")
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--checkpoint", default="~/.cache/falcon-mamba-app/random-7b")
    parser.add_argument("--save")
    given = parser.parse_args()
    device = torch.device("cuda" if on_gpu else "cpu")
    options = ["--model=nano", "--device=cpu"]
    if on_gpu:
        folder = Path(given.checkpoint).expanduser()
        if not (folder / "config.json").exists():
            write_random_7b(folder)
            torch.cuda.empty_cache()
        options = [f"--model={folder}"]
    facts = about("cluster", device, select_ops(device, "auto"))
    facts["machine"] = machine()
    table, result = asyncio.run(measure(given, options))
    finish("Several copies behind one address", facts, table, result, given.save)


if __name__ == "__main__":
    main()
