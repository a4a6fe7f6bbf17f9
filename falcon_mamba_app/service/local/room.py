"""How much memory the system still gives this process, where it has set a limit (`ulimit -v`).

The tokenizer's library ends the whole process when it gets none. So whoever is about to call it
with a long text asks here first. Without a limit nothing is looked at.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

from falcon_mamba_app.errors import Overloaded

# A slice of a text takes 20 MB at most, and two threads read one each; the rest is Python's.
NEEDED_BYTES = 64 * 2**20
SIZES = Path("/proc/self/statm")


def bytes_left() -> int | None:
    """None where nothing limits them, or nobody says how many are taken."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, ValueError, IndexError):
        return limit - int(SIZES.read_text().split()[0]) * resource.getpagesize()
    return None


def refuse_without_room() -> None:
    """Raises Overloaded where a text might end the process."""
    left = bytes_left()
    if left is not None and left < NEEDED_BYTES:
        raise Overloaded(
            f"the system gives this process {max(0, left) // 2**20} MiB of memory more, and reading"
            f" a long text takes up to {NEEDED_BYTES // 2**20}: try again later, or allow it more"
            " (`ulimit -v`)"
        )
