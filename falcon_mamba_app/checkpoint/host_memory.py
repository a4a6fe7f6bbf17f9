"""Returns freed host memory to the system while weights are read.

glibc learns to take blocks of up to 32 MB from its heap instead of from the system. Reading and
quantising allocates and frees such blocks all the time. The small kept parts fill the holes, so the
next blocks do not fit: a heap with 0.3 GB in use was seen to hold 1 GB.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def returning_freed(on_progress: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """`on_progress` that also returns every free page of the heap, if the C library can."""
    trim = _malloc_trim()
    if trim is None:
        return on_progress

    def tell(share: float, what: str) -> None:
        trim(0)
        on_progress(share, what)

    return tell


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # musl, macOS and Windows have no such function
        return None
    return trim
