"""Chooses the implementation of the operations for a device, once, at start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import REFERENCE, Ops

logger = logging.getLogger(__name__)

# Turing. Triton's compiler makes no code for older GPUs.
OLDEST_CAPABILITY = (7, 5)


@dataclass(frozen=True, slots=True)
class _Choice:
    """An implementation that needs packages; `make` raises ImportError if one is missing."""

    name: str
    packages: str
    pip_options: str
    make: Callable[[], Ops]


def select_ops(device: torch.device, preference: str) -> Ops:
    """The operations for `device`. `preference` is "reference", "auto" or the name of a choice.

    Raises SettingsError if the preferred implementation cannot run here.
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
    """The reason why this GPU is too old for our kernels, or None."""
    if device.type == "cpu":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= OLDEST_CAPABILITY:
        return None
    theirs, oldest = ("{}.{}".format(*pair) for pair in (capability, OLDEST_CAPABILITY))
    return f"this GPU has compute capability {theirs}, the Triton kernels need {oldest} or newer"


def _numba() -> Ops:
    from falcon_mamba_app.ops.cpu.ops import NUMBA
    from falcon_mamba_app.ops.cpu.warm_up import warm_up

    warm_up()  # otherwise the first request waits 3 s for the compiler
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
# These packages build against the installed torch, which pip hides from a build by default.
LIBRARY = _Choice("library", "causal-conv1d mamba-ssm", "--no-build-isolation ", _library)
