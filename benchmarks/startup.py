"""How long a newcomer waits: from `python app.py` to an answer, to the page, to ready, to a reply.

    python -m benchmarks.startup [--repeats 3] [--unbounded]

Prints a table and one JSON line. Exit status 1 when the slowest start takes more than 15 s to be
ready, or the first reply more than 2 s after that; with --unbounded only when it does not answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
MAX_READY_S, MAX_FIRST_REPLY_S = 15.0, 2.0


@contextmanager
def starting(**environment: str) -> Iterator[str]:
    """The app with the bundled model on a CPU, until the block is left; its address, which answers
    already. The page is still being built then, the model not loaded. What it keeps goes with it.
    """
    command = [sys.executable, "-u", "app.py", "--model", "nano", "--device", "cpu", "--port", "0"]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "FALCON_MAMBA_DATA_DIR": data, **environment},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield next(line.split()[-1] for line in process.stdout if "http://" in line)
        finally:
            process.terminate()


def wait_for_page(address: str) -> None:
    """Until the page itself is there, in place of the one that waits for it."""
    with _client(address) as http:
        while "gradio_config" not in http.get("/").text:
            time.sleep(0.02)


def wait_until_ready(address: str) -> None:
    """Until requests are served."""
    with _client(address) as http:
        while http.get("/health").status_code != 200:
            time.sleep(0.02)


def _client(address: str) -> httpx.Client:
    """One for all questions: to make it takes 0.05 s of the core that the app starts on."""
    return httpx.Client(base_url=address, timeout=60)


def measure() -> dict[str, float]:
    """One start of the app; seconds since the process was started."""
    started_s = time.perf_counter()
    with starting() as address:
        httpx.get(f"{address}/health", timeout=60)
        answer_s = time.perf_counter() - started_s
        wait_for_page(address)
        page_s = time.perf_counter() - started_s
        wait_until_ready(address)
        ready_s = time.perf_counter() - started_s
        body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 50}
        reply = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
        reply.raise_for_status()
        first_reply_s = time.perf_counter() - started_s - ready_s
    return {
        "answer_s": answer_s,
        "page_s": page_s,
        "ready_s": ready_s,
        "first_reply_s": first_reply_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--unbounded", action="store_true", help="on a machine that does other work"
    )
    options = parser.parse_args()
    runs = [measure() for _ in range(options.repeats)]
    print(f"{'':16}{'median':>8}{'slowest':>9}")
    figures = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        figures[name] = {"median": statistics.median(values), "slowest": max(values)}
        print(f"{name:16}{figures[name]['median']:7.2f}s{figures[name]['slowest']:8.2f}s")
    is_in_time = options.unbounded or (
        figures["ready_s"]["slowest"] <= MAX_READY_S
        and figures["first_reply_s"]["slowest"] <= MAX_FIRST_REPLY_S
    )
    print(json.dumps({"benchmark": "startup", "repeats": len(runs), **figures}))
    return 0 if is_in_time else 1


if __name__ == "__main__":
    sys.exit(main())
