"""Functions of one number, shared by several kernels."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(e) with e = exp(−|x|), log1p as a polynomial on 0 … 1 that errs by 2e-7.

    The GPU's fast logarithm has an absolute error of 2⁻²², which is 1e-4 of a Δ of 0.001. Above 20,
    torch's threshold, the second part is below fp32's last bit.
    """
    e = tl.exp2(tl.abs(x) * -LOG2_E)
    log1p = e * 0.005253457929939032 - 0.02958850748836994
    log1p = log1p * e + 0.07836166769266129
    log1p = log1p * e - 0.13674770295619965
    log1p = log1p * e + 0.19111430644989014
    log1p = log1p * e - 0.24844369292259216
    log1p = log1p * e + 0.33319270610809326
    log1p = log1p * e - 0.49999502301216125
    log1p = log1p * e + 1.0
    return tl.maximum(x, 0.0) + log1p * e


@triton.jit
def silu(x):
    """x / (1 + exp(−x)), with rsqrt² for the division: two instructions instead of eight."""
    root = tl.rsqrt(1.0 + tl.exp2(x * -LOG2_E))
    return x * (root * root)
