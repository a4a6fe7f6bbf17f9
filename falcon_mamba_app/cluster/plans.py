"""Decides how many copies a machine gets, and the options of each.

It knows no torch, whose import takes longer than everything else here, and would hold memory of
each GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings import AUTO, Settings

MAX_LOOK_S = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One copy: its name, and what is added to the command line and the environment."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def plan_copies(settings: Settings, environment: Mapping[str, str]) -> list[Plan]:
    """Raises SettingsError for more copies than GPUs."""
    gpus = [] if settings.model.device == "cpu" else visible_gpus(environment)
    wanted = settings.cluster.replicas
    number = max(1, len(gpus)) if wanted == AUTO else int(wanted)
    if gpus and number > len(gpus):
        raise SettingsError(
            f"--replicas is {number}, and this machine has {len(gpus)} GPUs; each copy takes one"
            " (--device cpu takes none)"
        )
    names = [str(index + 1) for index in range(number)]
    if gpus:
        return [
            Plan(name, (f"--replica={name}",), {"CUDA_VISIBLE_DEVICES": gpu})
            for name, gpu in zip(names, gpus, strict=False)
        ]
    return [Plan(name, (f"--replica={name}", *_threads(settings, number)), {}) for name in names]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them; none where the driver's tool is not there."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA sees no device from the first wrong one on; -1 is how people say none.
        return names[: next((at for at, name in enumerate(names) if name in ("", "-1")), None)]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=MAX_LOOK_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [str(index) for index, _ in enumerate(line for line in lines if line.startswith("GPU "))]


def _threads(settings: Settings, number: int) -> Sequence[str]:
    """The cores divided, unless somebody has said how many threads a copy has."""
    if settings.engine.threads != AUTO:
        return ()
    return (f"--threads={max(1, num_cores() // number)}",)


def num_cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
