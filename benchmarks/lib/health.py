"""How long /health takes, asked from a process of its own: python -m benchmarks.lib.health ADDRESS

It prints the time and the milliseconds of each answer until it is ended. A late answer counts for
all the questions that would have been asked meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

INTERVAL_S = 0.02


class HealthProbe:
    """The answers so far, as (when, milliseconds)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._answers: list[tuple[float, float]] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def between(self, start_s: float, end_s: float) -> list[float]:
        """Milliseconds of what was asked then, sorted."""
        return sorted(ms for at_s, ms in self._answers if start_s <= at_s < end_s)

    def wait_past(self, at_s: float) -> None:
        """Until a question asked after that moment was answered."""
        until_s = time.monotonic() + 120
        while not self._answers or self._answers[-1][0] < at_s:
            assert self._process.poll() is None and time.monotonic() < until_s, "no /health"
            time.sleep(INTERVAL_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at_s, ms = line.split()
            self._answers.append((float(at_s), float(ms)))


@contextmanager
def probing(address: str) -> Iterator[HealthProbe]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lib.health", address], stdout=subprocess.PIPE, text=True
    )
    try:
        yield HealthProbe(process)
    finally:
        process.kill()
        process.wait()


def _ask_for_ever(address: str) -> None:
    parts = urlsplit(address)
    while True:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.connect()  # each time: a connection that stays would close between two questions
        asked_s = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        took_s = time.monotonic() - asked_s
        connection.close()
        for late in range(int(took_s / INTERVAL_S) + 1):
            behind_s = late * INTERVAL_S
            print(asked_s + behind_s, 1_000 * (took_s - behind_s))
        sys.stdout.flush()
        time.sleep(max(0.0, INTERVAL_S - took_s))


if __name__ == "__main__":
    _ask_for_ever(sys.argv[1])
