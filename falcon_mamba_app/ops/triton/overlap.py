"""Kernels of a decode step overlap: one starts while the previous one ends.

A kernel of a few microseconds spends most of its time on starting and draining, while memory idles.
On Hopper and later a launch with `OVERLAPPED` starts as soon as the previous kernel leaves room.
Before `wait_for_inputs` a kernel may only touch data that no kernel writes: weights. Every kernel
that is launched this way must call it before any other read or write: the next kernel relies on it,
because this kernel's end must mean that all earlier kernels have ended.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from falcon_mamba_app.ops.triton.device import current_gpu

CAN_OVERLAP = torch.cuda.is_available() and current_gpu().can_overlap

if CAN_OVERLAP:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_CAN_OVERLAP = tl.constexpr(CAN_OVERLAP)
# Keyword arguments of every launch of a kernel that waits for its inputs.
OVERLAPPED = {"launch_pdl": True} if CAN_OVERLAP else {}


@triton.jit
def start_next():
    """Let the next kernel start as soon as this one leaves room."""
    if _CAN_OVERLAP:
        gdc_launch_dependents()


@triton.jit
def wait_for_inputs():
    """Return when all earlier kernels have ended and their results can be read."""
    if _CAN_OVERLAP:
        gdc_wait()


@triton.jit
def read_ahead(pointers, num_bytes: tl.constexpr):
    """Start to load `num_bytes`, a multiple of 16, from each pointer into the cache, without
    waiting. This is a hint; no result depends on it.
    """
    if _CAN_OVERLAP:
        tl.inline_asm_elementwise(
            "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
            "=r,l,r",
            [pointers.to(tl.int64), tl.full(pointers.shape, num_bytes, tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
