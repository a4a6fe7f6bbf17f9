"""A script that compiles the CPU's kernels for another processor than this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def assert_prints_equal(script: str, features: str, cache: Path) -> None:
    """Run the script with numba compiling for these `features` of x86, into an empty `cache`."""
    own = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **own, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "equal", result.stderr[-2000:]
