"""`reference/allowed_tokens.py` as one Triton kernel; torch needs six launches."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops.reference.allowed_tokens import BITS

PART = 2048  # tokens per program
_BITS = tl.constexpr(BITS)
_INFINITE = tl.constexpr(float("inf"))


def allow_only(logits: Tensor, allowed: Tensor) -> None:
    """`Ops.allow_only` on the device, without a sync."""
    assert logits.stride(1) == 1 and allowed.stride(1) == 1, (logits.stride(), allowed.stride())
    num_rows, vocab_size = logits.shape
    grid = (triton.cdiv(vocab_size, PART), num_rows)
    _allow_only_kernel[grid](logits, logits.stride(0), allowed, allowed.stride(0), vocab_size, PART)


@triton.jit
def _allow_only_kernel(
    logits_ptr, logits_stride, allowed_ptr, allowed_stride, vocab_size, PART: tl.constexpr
):
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = part * PART + tl.arange(0, PART)
    is_token = columns < vocab_size
    words = tl.load(allowed_ptr + row * allowed_stride + columns // _BITS, mask=is_token, other=-1)
    is_excluded = is_token & (((words >> (columns % _BITS)) & 1) == 0)
    places = logits_ptr + row * logits_stride + columns
    logits = tl.load(places, mask=is_excluded, other=0.0)
    tl.store(places, logits - _INFINITE, mask=is_excluded)
