"""Which implementation of the operations a device gets. Asked once, at start."""

from __future__ import annotations

import logging

import torch

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.reference import REFERENCE

logger = logging.getLogger(__name__)


def select_ops(device: torch.device, preference: str) -> Ops:
    """The operations for `device`. `preference` is "auto", "reference", "numba" or "triton".

    Raises SettingsError when what was asked for cannot be had here.
    """
    if preference == "reference":
        return REFERENCE
    kernels = "numba" if device.type == "cpu" else "triton"
    if preference not in ("auto", kernels):
        raise SettingsError(
            f"--kernels {preference} does not run on {device.type}; use auto, {kernels} or"
            " reference"
        )
    try:
        return _numba() if kernels == "numba" else _triton()
    except ImportError as error:
        if preference == kernels:
            raise SettingsError(
                f"--kernels {kernels} needs the package {kernels} ({error});"
                f" pip install {kernels}, or use --kernels auto"
            ) from error
        logger.warning(
            "%s runs plain torch, several times slower: pip install %s (%s)",
            device.type,
            kernels,
            error,
        )
        return REFERENCE


def _numba() -> Ops:
    from falcon_mamba_app.ops.numba_kernels import NUMBA, warm_up

    warm_up()  # else the first request would wait for the compiler, 3 s
    return NUMBA


def _triton() -> Ops:
    from falcon_mamba_app.ops.triton_kernels import TRITON

    return TRITON
