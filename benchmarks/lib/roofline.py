"""What this machine can do at best: bytes read, bytes copied and, on a GPU, exponentials a second.

Every speed that another benchmark reports stands beside one of these, measured in the same run,
because a card's data sheet promises more than any program gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.lib.timing import describe, median_s

GPU_BYTES = 4 * 2**30  # 80 times an H100's L2
CPU_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Roofline:
    read_bytes_per_s: float
    copy_bytes_per_s: float  # read plus written
    exponentials_per_s: float | None  # None on a CPU


def measure(device: torch.device, num_bytes: int | None = None) -> Roofline:
    """Over `num_bytes`, or as many as no cache holds."""
    num_bytes = num_bytes or (GPU_BYTES if device.type == "cuda" else CPU_BYTES)
    source = torch.randn(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_s = median_s(lambda: target.copy_(source), device)
    read_s = median_s(source.sum, device)
    exponentials = None
    if device.type == "cuda":
        from benchmarks.lib.exponentials import exponentials_per_s

        exponentials = exponentials_per_s(device)
    return Roofline(num_bytes / read_s, 2 * num_bytes / copy_s, exponentials)


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
