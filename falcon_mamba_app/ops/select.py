"""Which implementation of the operations a device gets. Asked once, at start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import REFERENCE, Ops

logger = logging.getLogger(__name__)

# Turing's. Triton's compiler makes no code for older ones.
OLDEST_CAPABILITY = (7, 5)


@dataclass(frozen=True, slots=True)
class _Choice:
    """An implementation that needs packages; `make` raises ImportError where they are missing."""

    name: str
    packages: str
    pip_options: str
    make: Callable[[], Ops]


def select_ops(device: torch.device, preference: str) -> Ops:
    """The operations for `device`. `preference` is "reference", "auto" or the name of a choice.

    Raises SettingsError when what was asked for cannot be had here.
    """
    if preference == "reference":
        return REFERENCE
    choices = [NUMBA] if device.type == "cpu" else [TRITON, LIBRARY]
    names = [choice.name for choice in choices]
    if preference == "auto":
        return _first_or_reference(device, choices[0])
    if preference not in names:
        raise SettingsError(
            f"--kernels {preference} does not run on {device.type}; use auto, {', '.join(names)}"
            " or reference"
        )
    choice = choices[names.index(preference)]
    if too_old := _too_old(device):
        raise SettingsError(f"--kernels {choice.name}: {too_old}; use reference")
    try:
        return choice.make()
    except ImportError as error:
        raise SettingsError(
            f"--kernels {choice.name} needs the package {choice.packages} ({error});"
            f" pip install {choice.pip_options}{choice.packages}, or use --kernels auto"
        ) from error


def _first_or_reference(device: torch.device, choice: _Choice) -> Ops:
    if too_old := _too_old(device):
        logger.warning("%s: plain torch runs instead, several times slower", too_old)
        return REFERENCE
    try:
        return choice.make()
    except ImportError as error:
        logger.warning(
            "%s runs plain torch, several times slower: pip install %s (%s)",
            device.type,
            choice.packages,
            error,
        )
        return REFERENCE


def _too_old(device: torch.device) -> str | None:
    """Why this GPU cannot run our kernels, if it cannot."""
    if device.type == "cpu":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= OLDEST_CAPABILITY:
        return None
    theirs, oldest = ("{}.{}".format(*pair) for pair in (capability, OLDEST_CAPABILITY))
    return f"this GPU has compute capability {theirs}, the Triton kernels need {oldest} or newer"


def _numba() -> Ops:
    from falcon_mamba_app.ops.cpu.ops import NUMBA, warm_up

    warm_up()  # else the first request would wait for the compiler, 3 s
    return NUMBA


def _triton() -> Ops:
    from falcon_mamba_app.ops.triton.machine_code import check_what_triton_keeps
    from falcon_mamba_app.ops.triton.ops import TRITON

    check_what_triton_keeps()
    return TRITON


def _library() -> Ops:
    from falcon_mamba_app.ops.mamba_ssm import MambaSsmOps
    from falcon_mamba_app.ops.triton.machine_code import check_what_triton_keeps

    check_what_triton_keeps()
    return MambaSsmOps()


NUMBA = _Choice("numba", "numba", "", _numba)
TRITON = _Choice("triton", "triton", "", _triton)
# They build against the torch that is there, which pip hides from a build unless told not to.
LIBRARY = _Choice("library", "causal-conv1d mamba-ssm", "--no-build-isolation ", _library)
