"""Divides a kernel's channels among torch's number of threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import torch

from falcon_mamba_app.ops.cpu import kernels


def split(run: Callable[[int, int], None], num_channels: int, max_parts: int) -> None:
    """Call run(low, high) for parts of all channels, on torch's number of threads, and in at most
    max_parts parts.
    """
    if max_parts < 2:
        run(0, num_channels)
        return
    # Whole blocks, so that two threads never write to the same cache line.
    num_blocks = -(-num_channels // kernels.BLOCK)
    num_parts = min(torch.get_num_threads(), max_parts, num_blocks)
    blocks = [part * num_blocks // num_parts for part in range(num_parts + 1)]
    (low, high), *others = pairwise(min(block * kernels.BLOCK, num_channels) for block in blocks)
    threads = [Thread(target=run, args=part) for part in others]
    for thread in threads:
        thread.start()
    run(low, high)
    for thread in threads:
        thread.join()
