"""The 7B on a machine without a GPU: its published file in 4 bits, where the memory holds it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from falcon_mamba_app.checkpoint.asked import AskedModel
from falcon_mamba_app.errors import CheckpointError

logger = logging.getLogger(__name__)

FILES = {
    "falcon-mamba-7b": "falcon-mamba-7b-q4_k_m",
    "falcon-mamba-7b-instruct": "falcon-mamba-7b-instruct-q4_k_m",
}
FILE_BYTES = 4_200_000_000  # read once for each token
BESIDE_BYTES = 1_300_000_000  # the app, a tile of a matrix, states
PROBE_BYTES = 2**27
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """The file that replaces a known name."""

    model: str
    revision: str | None = None


def published_file(asked: AskedModel, host_bytes: int | None) -> AskedModel:
    """What runs instead of the request; the request itself where that is no 7B, names a revision,
    or nothing is known of the memory. Says what to expect before anything is downloaded.

    Raises CheckpointError if the memory is too small even for the file.
    """
    name = FILES.get(asked.model.lower())
    if name is None or asked.revision is not None or host_bytes is None:
        return asked
    needed = FILE_BYTES + BESIDE_BYTES
    if host_bytes < needed:
        raise CheckpointError(
            f"{asked.model} needs {needed / 1e9:.1f} GB of memory without a GPU, in its published"
            f" file of 4 bits, and {host_bytes / 1e9:.1f} GB are free; use `model` nano, or a GPU"
        )
    bandwidth = read_bytes_per_s()
    logger.info(
        "no GPU: %s runs from its published file in 4 bits, %s, %.1f GB; this machine reads"
        " %.0f GB/s, so expect up to %.1f tokens a second (`quantization` none: the original)",
        asked.model,
        name,
        FILE_BYTES / 1e9,
        bandwidth / 1e9,
        bandwidth / FILE_BYTES,
    )
    return PublishedFile(name)


def read_bytes_per_s() -> float:
    """The better of three readings of memory, on torch's threads."""
    source = torch.ones(PROBE_BYTES // 4)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        source.sum()
        seconds.append(time.perf_counter() - began)
    return PROBE_BYTES / min(seconds)


def free_host_bytes() -> int | None:
    """The memory that this process may still take: of the machine, and of its container. None
    where the system does not say.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    for path in LIMITS:
        try:
            free = min(free, int(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return free
