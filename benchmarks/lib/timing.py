"""How long one call takes: the median of several, on the device's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def median_s(run: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Median seconds of one call, after two calls that are not counted."""
    clock = _gpu_s if device.type == "cuda" else _cpu_s
    return statistics.median([clock(run) for _ in range(repeats + 2)][2:])


def median_s_of_each(calls: list[Callable[[], object]], device: torch.device) -> float:
    """Median seconds of one of `calls`, run in turn and, on a GPU, as one CUDA graph.

    Give each call tensors of its own, together larger than the cache. A graph leaves out the gaps
    between launches, which would be most of the time of an operation of a few microseconds.
    """
    if device.type == "cpu":
        return median_s(lambda: [call() for call in calls], device, repeats=5) / len(calls)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return median_s(graph.replay, device, repeats=20) / len(calls)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def _gpu_s(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _cpu_s(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
