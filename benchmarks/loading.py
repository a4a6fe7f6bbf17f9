"""Loading a checkpoint: how long, and the most that host and device hold meanwhile.

    python -m benchmarks.loading FOLDER [--weights nf4] [--save NAME]

In a process of its own, after the bundled model has been loaded, so that what is counted is the
checkpoint's and not the libraries'. The host's figure leaves out the files' own pages, which the
system can drop. Quantising while reading must hold no more than one file and 2 GB. Prints a table
and one JSON line. Exit status 1 where the host held more.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.quantization import Quantization
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import weights_bytes
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings

ROOM_BYTES = 2_000_000_000  # beside one file
PERIOD_S = 0.002


class HostPeak:
    """While it is entered: `num_bytes`, the most that this process came to hold more."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> HostPeak:
        self._before = own_bytes()
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._is_over.wait(PERIOD_S):
            self.num_bytes = max(self.num_bytes, own_bytes() - self._before)


def own_bytes() -> int:
    memory = psutil.Process().memory_info()
    num_bytes: int = memory.rss - memory.shared
    return num_bytes


def load(name: str, form: str, device: torch.device, kernels: str) -> FalconMamba:
    ops = select_ops(device, kernels)
    model = load_model(
        locate(ModelSettings(model=name), has_cuda=False),
        device=device,
        dtype=torch.bfloat16,
        make_model=lambda config: FalconMamba(config, ops),
        quantization=None if form == "none" else Quantization(form),
    )
    assert isinstance(model, FalconMamba)
    return model


def measure(folder: Path, form: str, device: torch.device, kernels: str) -> dict[str, Any]:
    load("nano", form, device, kernels)  # imports what loading imports
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    files = [path.stat().st_size for path in folder.glob("*.safetensors")]
    started_s = time.perf_counter()
    with HostPeak() as host:
        model = load(str(folder), form, device, kernels)
    return {
        "weights": form,
        "seconds": time.perf_counter() - started_s,
        "files_bytes": sum(files),
        "largest_file_bytes": max(files),
        "held_bytes": weights_bytes(model),
        "host_peak_bytes": host.num_bytes,
        "device_peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="nf4", choices=("none", "int8", "nf4", "fp4"))
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = measure(options.folder, options.weights, device, options.kernels)
    table = Table("weights", "s", "files GB", "largest", "held", "host peak GB", "device peak GB")
    sizes = ("files_bytes", "largest_file_bytes", "held_bytes", "host_peak_bytes")
    table.add(
        "bf16" if options.weights == "none" else options.weights,
        f"{found['seconds']:.1f}",
        *(f"{found[size] / 1e9:.2f}" for size in sizes),
        "" if device.type == "cpu" else f"{found['device_peak_bytes'] / 1e9:.2f}",
    )
    facts = about("loading", device, select_ops(device, options.kernels))
    finish("Loading", facts, table, {"benchmark": "loading", **found}, options.save)
    # On a CPU what is made stays in the same memory.
    made = found["held_bytes"] if device.type == "cpu" else 0
    return int(found["host_peak_bytes"] > found["largest_file_bytes"] + ROOM_BYTES + made)


if __name__ == "__main__":
    sys.exit(main())
