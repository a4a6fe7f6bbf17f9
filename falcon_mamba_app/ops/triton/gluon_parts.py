"""What kernels in Gluon share; and whether this Triton has a Gluon that they were written for.

Gluon is Triton's own lower language: a kernel says which lane holds which numbers. It may change
from version to version, and has no interpreter.
"""

from __future__ import annotations

import torch
import triton

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy
except ImportError:
    gluon = None

# Versions of Triton that were tried: 3.6 on a card, 3.9 as far as its compiler.
OLDEST, NEWEST = (3, 6), (3, 9)


def is_available() -> bool:
    """Whether kernels in Gluon can run here."""
    if gluon is None or not torch.cuda.is_available() or torch.version.hip is not None:
        return False
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return OLDEST <= version <= NEWEST


if gluon is not None:
    # Copies a tile to shared memory. Its name from 3.9 on, and the one before.
    load_ahead = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared

    @gluon.jit
    def start_next(HAS_PDL: gl.constexpr):
        """`overlap.start_next`"""
        if HAS_PDL:
            gl.inline_asm_elementwise(
                "griddepcontrol.launch_dependents; mov.u32 $0, 0;",
                "=r",
                [],
                dtype=gl.int32,
                is_pure=False,
                pack=1,
            )

    @gluon.jit
    def wait_for_inputs(HAS_PDL: gl.constexpr):
        """`overlap.wait_for_inputs`"""
        if HAS_PDL:
            gl.inline_asm_elementwise(
                "griddepcontrol.wait; mov.u32 $0, 0;",
                "=r",
                [],
                dtype=gl.int32,
                is_pure=False,
                pack=1,
            )
