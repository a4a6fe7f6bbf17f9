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

import torch

# In this order: what needs the most memory, or is the least to be missed, comes first.
OPTIONS: dict[str, list[str]] = {
    "accuracy": [],
    "context": [],
    "serving": [],
    "decode": ["--peers"],
    "prefill": ["--lengths", "8192", "32768", "--peers"],
    "quantization": [],
    "snapshots": [],
}
OWN_PROCESS = {"serving"}


def run(name: str, suffix: str) -> bool:
    """Whether the benchmark came to its end, with all of its bounds kept where it has any."""
    arguments = [*OPTIONS[name], "--save", f"{name}-{suffix}"]
    print(f"\n## {name}", flush=True)
    if name in OWN_PROCESS:
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        return subprocess.run(command, check=False).returncode == 0
    sys.argv = [name, *arguments]
    try:
        return not importlib.import_module(f"benchmarks.{name}").main()
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
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    options = parser.parse_args()
    failed = []
    for name in options.only:
        started_s = time.perf_counter()
        if not run(name, options.suffix):
            failed.append(name)
        print(f"{name} took {time.perf_counter() - started_s:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
