"""`falcon-mamba serve` with one or several copies, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[2]
MAX_START_S = 300.0

Found = TypeVar("Found")


class Copies:
    """The process that was started and what it says. `url` is the one address."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "falcon_mamba_app", "serve", *options],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._num_killed = 0
        self.url = wait_until(self._address)

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.output
        found = re.search(r"is at (http://\S+)", self.output)
        return found[1] if found else None

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def own_urls(self) -> dict[str, str]:
        """Where each copy itself answers."""
        return dict(re.findall(r"copy (\w+) is ready, at (http://\S+) too", self.output))

    @property
    def lives(self) -> int:
        """How many times a copy has become ready."""
        return self.output.count("is ready, at http")

    def wait_until_ready(self, lives: int) -> None:
        """Return once copies have become ready so many times in all."""

        def are_ready() -> bool:
            # A copy that cannot start ends and is started again.
            ended = self.output.count("has ended (status")
            assert self.process.poll() is None and ended <= self._num_killed, self.output
            return self.lives >= lives

        wait_until(are_ready)

    def pid_of(self, name: str) -> int:
        """The process of the copy with this name."""
        for child in psutil.Process(self.process.pid).children():
            if f"--replica={name}" in child.cmdline():
                return child.pid
        raise AssertionError(f"copy {name} does not run")

    def kill(self, name: str) -> None:
        self._num_killed += 1
        os.kill(self.pid_of(name), signal.SIGKILL)

    def end(self) -> int:
        """The exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(MAX_START_S)


def wait_until(found: Callable[[], Found | None], timeout_s: float = MAX_START_S) -> Found:
    """What is found, once it is something. Looks twenty times a second."""
    end_s = time.monotonic() + timeout_s
    while not (result := found()):
        assert time.monotonic() < end_s, f"not within {timeout_s} s"
        time.sleep(0.05)
    return result
