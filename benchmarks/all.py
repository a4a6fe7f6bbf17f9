"""The benchmarks of one machine in one run, so that their figures belong together.

    python -m benchmarks.all --suffix h100 [--only decode prefill …]

Each writes results/NAME-SUFFIX.json and .md as it ends. Those of the engine share one process and
one model; the service has a process of its own, because it is timed from its start. One that fails
is reported and the others go on; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Run:
    """A benchmark with its options; `name` is its result's."""

    name: str
    benchmark: str
    options: tuple[str, ...] = ()
    has_own_process: bool = False


# In this order: what needs the most memory, or is the least to be missed, comes first.
RUNS = (
    Run("accuracy", "accuracy"),
    Run("quantization", "quantization"),
    Run("decode", "decode", ("--peers",)),
    Run("context", "context"),
    Run("serving", "serving", has_own_process=True),
    Run("prefill", "prefill", ("--lengths", "8192", "32768", "--peers")),
    Run(
        "context-nf4",
        "context",
        ("--weights", "nf4", "--lengths", "1024", "131072", "1048576"),
    ),
    Run("snapshots", "snapshots"),
    Run("kernels", "kernels"),
)


def run(it: Run, suffix: str) -> bool:
    """Whether the benchmark came to its end, with all of its bounds kept where it has any."""
    arguments = [*it.options, "--save", f"{it.name}-{suffix}"]
    print(f"\n## {it.name}", flush=True)
    if it.has_own_process:
        command = [sys.executable, "-m", f"benchmarks.{it.benchmark}", *arguments]
        return subprocess.run(command, check=False).returncode == 0
    sys.argv = [it.benchmark, *arguments]
    try:
        return not importlib.import_module(f"benchmarks.{it.benchmark}").main()
    except (Exception, SystemExit):
        traceback.print_exc()
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suffix", required=True, help="of the results' names: the machine")
    names = [it.name for it in RUNS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    failed = []
    by_name = {it.name: it for it in RUNS}
    for it in (by_name[name] for name in options.only):
        started_s = time.perf_counter()
        if not run(it, options.suffix):
            failed.append(it.name)
        print(f"{it.name} took {time.perf_counter() - started_s:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
