"""Two copies of the app with the bundled model behind one address: `--replicas 2` starts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.lib.copies import Copies

SECRET = "the secret of all copies in a test"


@contextmanager
def copies_of(log: Path, data: Path, *options: str) -> Iterator[Copies]:
    """Two copies that are ready, with the library and the states in `data`."""
    copies = Copies(
        log,
        *("--replicas=2", "--port=0", "--model=nano", "--device=cpu"),
        *("--keep-conversations=auto", f"--data-dir={data}", f"--state-store={data / 'states'}"),
        *("--state-idle-s=1", f"--session-secret={SECRET}"),
        *options,
    )
    try:
        copies.wait_until_ready(2)
        yield copies
    finally:
        if copies.process.poll() is None:
            copies.end()
