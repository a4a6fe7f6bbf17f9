"""Which implementation of the operations a device gets. Asked once, at start."""

from __future__ import annotations

import logging

import torch

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.reference import REFERENCE

logger = logging.getLogger(__name__)


def select_ops(device: torch.device, preference: str) -> Ops:
    """The operations for `device`. `preference` is "auto", "reference" or "triton".

    Raises SettingsError when what was asked for cannot be had here.
    """
    if preference == "reference" or (preference == "auto" and device.type == "cpu"):
        return REFERENCE
    try:
        from falcon_mamba_app.ops.triton_kernels import TRITON
    except ImportError as error:
        if preference == "triton":
            raise SettingsError(
                f"--kernels triton needs the package triton ({error}); pip install triton, or use"
                " --kernels auto"
            ) from error
        logger.warning("triton is not installed: the GPU runs plain torch, several times slower")
        return REFERENCE
    return TRITON
