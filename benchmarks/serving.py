"""What the service leaves of the engine's speed, and what one reader notices of another.

    python -m benchmarks.serving [--clients 32] [--tokens 200] [--long-tokens 100000] [--save NAME]

On a GPU the real 7B shape with random weights, read from a checkpoint that is written once
(`--checkpoint`), elsewhere the bundled model. The same process holds engine, service and HTTP
server, as the app does; readers over HTTP are a process of their own. The engine alone runs on the
service's own engine thread, by itself. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.decode import add_sequences
from benchmarks.lib import readers
from benchmarks.lib.readers import Reading
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_tokenizer
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Sampled
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.protocol import (
    Conversation,
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    TextDelta,
)
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings, ServerSettings, Settings

SENTENCE = "The old man and the dog went down to the river to see what the water had brought. "
TURN_TOKENS = 64


class Measurements:
    """Figures by name, and the table of those that have a bound."""

    def __init__(self) -> None:
        self.table = Table("measure", "figure", "pass", "aim")
        self.figures: dict[str, Any] = {}

    def add(self, name: str, value: Any, shown: str, passes: str = "", aim: str = "") -> None:
        self.figures[name.replace(" ", "_")] = value
        self.table.add(name, shown, passes, aim)

    def add_share(self, name: str, rate: float, alone: float, *, passes: float) -> None:
        share = rate / alone
        self.figures[name.replace(" ", "_") + "_tokens_per_s"] = rate
        shown = f"{rate:.0f} tok/s, {share:.3f} of the engine"
        self.add(f"{name} share", share, shown, f"≥ {passes}", "≥ 0.95")


def alone(engine: Engine, num_rows: int, steps: int) -> float:
    """Tokens a second of the engine by itself; runs on the thread that owns it."""
    add_sequences(engine, num_rows, prompt_tokens=32)
    started_s = time.perf_counter()
    num_tokens = sum(isinstance(event, Sampled) for _ in range(steps) for event in engine.step())
    seconds = time.perf_counter() - started_s
    for seq_id in range(num_rows):
        engine.abort(seq_id)
    while engine.has_work:
        engine.step()
    return num_tokens / seconds


def body(number: int, num_tokens: int, **fields: Any) -> dict[str, Any]:
    """A chat request of one of the readers."""
    content = f"Tell me story number {number}."
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": number,
        **fields,
    }


async def read_service(service: LocalService, number: int, num_tokens: int) -> Reading:
    """The reader `body` describes, in this process and without HTTP."""
    sampling = SamplingParams(
        temperature=0.7, top_p=0.9, seed=number, ignore_eos=True, max_new_tokens=num_tokens
    )
    prompt = Conversation([Message("user", f"Tell me story number {number}.")])
    reading = Reading(started_s=time.perf_counter())
    request = GenerationRequest(prompt=prompt, sampling=sampling)
    async with aclosing(service.generate(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                reading.times.append(time.perf_counter())
            elif isinstance(event, Finished):
                reading.num_tokens = event.completion_tokens
    return reading


@asynccontextmanager
async def served(service: LocalService) -> AsyncGenerator[str, None]:
    """The app over the service, in this process, on a free port; gives its address."""
    import uvicorn

    from falcon_mamba_app.middleware.stack import listening
    from falcon_mamba_app.server import build_app
    from falcon_mamba_app.web_server import listen

    # One measurement must not begin where another's prompt was read.
    settings = Settings(server=ServerSettings(reuse_prompts=False))
    options = listening(settings)
    server = uvicorn.Server(uvicorn.Config(build_app(service, settings), **options))
    listener = listen(ServerSettings(port=0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def text_of(num_tokens: int, tokenizer: Any) -> str:
    """A text of about this number of tokens."""
    per_sentence = len(tokenizer(SENTENCE * 20)["input_ids"]) / 20
    return SENTENCE * max(1, round(num_tokens / per_sentence))


def file_reading_s(folder: Path) -> float:
    """Seconds to read the checkpoint's files once, as they are now: from disk or its cache."""
    started_s = time.perf_counter()
    buffer = bytearray(64 * 2**20)
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started_s


async def measure_speeds(
    service: LocalService, url: str, options: argparse.Namespace, out: Measurements
) -> None:
    for num_readers in (1, options.clients):
        rate = await on_engine(service, alone, num_readers, options.tokens)
        out.add(f"engine alone {num_readers}", rate, f"{rate:.0f} tok/s")
        passes = 0.95 if num_readers == 1 else 0.85
        readings = await asyncio.gather(
            *(read_service(service, i, options.tokens) for i in range(num_readers))
        )
        read = readers.crowd(readings).tokens_per_s
        out.add_share(f"service {num_readers} readers", read, rate, passes=passes)
        bodies = [body(i, options.tokens) for i in range(num_readers)]
        found = await readers.in_own_process(readers.read_together, url=url, bodies=bodies)
        read = found["tokens_per_s"]
        out.add_share(f"HTTP {num_readers} readers", read, rate, passes=passes)


async def on_engine(service: LocalService, function: Any, *arguments: Any) -> Any:
    future = service._worker.call(lambda engine: function(engine, *arguments))
    return await asyncio.wrap_future(future)


async def measure_beside_a_long_prompt(
    url: str, options: argparse.Namespace, tokenizer: Any, out: Measurements
) -> None:
    content = text_of(options.long_tokens, tokenizer)
    found = await readers.in_own_process(
        readers.read_beside_a_long_prompt,
        url=url,
        bodies=[body(i, options.endless_tokens) for i in range(options.clients)],
        long_body=body(0, 2, messages=[{"role": "user", "content": content}]),
        idle_s=options.idle_s,
    )
    ratio = found["busy_p99_ms"] / found["idle_p99_ms"]
    gaps = f"{found['busy_p99_ms']:.1f} ÷ {found['idle_p99_ms']:.1f} ms"
    out.add("gap p99 beside a long prompt", ratio, f"{ratio:.2f}, {gaps}", "≤ 2.5", "≤ 1.5")
    speed = found["prompt_tokens"] / found["prompt_s"]
    shown = f"{found['prompt_tokens']} tokens in {found['prompt_s']:.1f} s, {speed:.0f} tok/s"
    out.add("the long prompt meanwhile", found, shown)


async def measure_turns(
    url: str, options: argparse.Namespace, tokenizer: Any, out: Measurements
) -> None:
    later = text_of(TURN_TOKENS, tokenizer)
    request = body(0, 4, temperature=0.0)
    with_history = await readers.in_own_process(
        readers.read_turns,
        url=url,
        body={**request, "prompt_cache_key": "long"},
        first=text_of(options.long_tokens, tokenizer),
        later=later,
        num_turns=options.turns,
    )
    without = await readers.in_own_process(
        readers.read_fresh_turns,
        url=url,
        body={**request, "prompt_cache_key": "fresh"},
        later=later,
        num_turns=options.turns,
    )
    turns = with_history["turns"][1:]
    ttft = statistics.median(turn["ttft_ms"] for turn in turns)
    fresh = statistics.median(turn["ttft_ms"] for turn in without["turns"])
    ratio, history = ttft / fresh, turns[0]["reused_tokens"]
    shown = f"{ratio:.3f}, {ttft:.1f} ÷ {fresh:.1f} ms, after {history} tokens"
    out.add("first token of a turn over HTTP", ratio, shown)
    out.figures["turns"] = {"with_history": with_history["turns"], "without": without["turns"]}


async def measure_start(
    service: LocalService, folder: Path, options: argparse.Namespace, out: Measurements
) -> None:
    """From the start of this process, less what it spent on writing the checkpoint."""
    await service.start()
    await read_service(service, 0, 1)
    age_s = time.time() - psutil.Process().create_time() - options.writing_s
    read_s = file_reading_s(folder)
    shown = f"{age_s - read_s:.1f} s, and {read_s:.1f} s to read the files"
    out.add("from start to first token", age_s - read_s, shown, "≤ 30 s")
    out.figures["file_reading_s"] = read_s


async def measure(options: argparse.Namespace, out: Measurements) -> None:
    has_gpu = torch.cuda.is_available()
    model = ModelSettings(model=str(options.checkpoint) if has_gpu else "nano")
    # One more than the readers: for the long prompt that somebody sends while all of them read.
    limits = EngineSettings(max_running=options.clients + 1, max_new_tokens=2**20)
    checkpoint = locate(model, has_cuda=has_gpu)
    service = build_local(model, limits)
    try:
        await measure_start(service, checkpoint.folder, options, out)
        if options.start_only:
            return
        async with served(service) as url:
            tokenizer = load_tokenizer(checkpoint)
            await measure_beside_a_long_prompt(url, options, tokenizer, out)
            await measure_turns(url, options, tokenizer, out)
            await measure_speeds(service, url, options, out)
    finally:
        await service.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200, help="of each reply")
    parser.add_argument("--long-tokens", type=int, default=100_000)
    parser.add_argument("--endless-tokens", type=int, default=20_000)
    parser.add_argument("--idle-s", type=float, default=2.0, help="before the long prompt")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--start-only", action="store_true", help="measure the start, no more")
    default = Path(tempfile.gettempdir()) / "falcon-mamba-7b-random"
    parser.add_argument("--checkpoint", type=Path, default=default, help="written if missing")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d ms %(message)s")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.writing_s = write_checkpoint(options.checkpoint) if device.type == "cuda" else 0.0
    out = Measurements()
    asyncio.run(measure(options, out))
    facts = about("serving", device, select_ops(device, "auto"))
    finish("Serving", facts, out.table, {"benchmark": "serving", **out.figures}, options.save)


def write_checkpoint(folder: Path) -> float:
    """Seconds it took to write a 7B-shaped checkpoint, 0 where the folder holds one."""
    if (folder / "config.json").exists():
        return 0.0
    started_s = time.time()
    subprocess.run([sys.executable, "-m", "benchmarks.lib.checkpoint", str(folder)], check=True)
    seconds = time.time() - started_s
    print(f"wrote {folder} in {seconds:.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    main()
