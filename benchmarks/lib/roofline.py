"""What this machine can do at best: bytes read, bytes copied and, on a GPU, exponentials a second.

Every speed that another benchmark reports stands beside one of these, measured in the same run,
because a card's data sheet promises more than any program gets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

GPU_BYTES = 4 * 2**30  # 80 times an H100's L2
CPU_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Roofline:
    read_bytes_per_s: float
    copy_bytes_per_s: float  # read plus written
    exponentials_per_s: float | None  # None on a CPU


def measure(device: torch.device) -> Roofline:
    num_bytes = GPU_BYTES if device.type == "cuda" else CPU_BYTES
    source = torch.randn(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_s = median_s(lambda: target.copy_(source), device)
    read_s = median_s(source.sum, device)
    exponentials = None
    if device.type == "cuda":
        from benchmarks.lib.exponentials import exponentials_per_s

        exponentials = exponentials_per_s(device)
    return Roofline(num_bytes / read_s, 2 * num_bytes / copy_s, exponentials)


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
    return start.elapsed_time(end) / 1000


def _cpu_s(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    roofline = measure(device)
    print(f"{describe(device)}, torch {torch.__version__}")
    print(f"read  {roofline.read_bytes_per_s / 1e9:8.0f} GB/s")
    print(f"copy  {roofline.copy_bytes_per_s / 1e9:8.0f} GB/s, read plus written")
    if roofline.exponentials_per_s:
        print(f"exp2  {roofline.exponentials_per_s / 1e9:8.0f} G/s")


if __name__ == "__main__":
    main()
