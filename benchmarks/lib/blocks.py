"""Matrices put into the blocks of a GGUF file, to measure what that costs.

The package `gguf` does it for Q8_0 and Q4_0 alone. Q4_K is done here in the plainest way: a group
of 32 spans from its least number to its largest. (llama.cpp also searches for the factors with the
least error, so its files lose a little less.)
"""

from __future__ import annotations

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from falcon_mamba_app.ops.reference.weight_ggml import BLOCKS, WeightGgml

BLOCK, GROUP, NUM_GROUPS = 256, 32, 8
MOST, MOST_FACTOR = 15, 63  # a number has 4 bits, a factor 6


def to_blocks(matrix: Tensor, kind: str) -> WeightGgml:
    """Rows that fill no whole blocks of the kind are put into Q8_0."""
    if matrix.shape[1] % BLOCKS[kind][0]:
        kind = "Q8_0"
    if kind == "Q4_K":
        return WeightGgml(_q4_k(matrix.float()), kind)
    data = gguf.quants.quantize(matrix.float().numpy(), GGMLQuantizationType[kind])
    return WeightGgml(torch.from_numpy(np.ascontiguousarray(data)), kind)


def _q4_k(matrix: Tensor) -> Tensor:
    groups = matrix.reshape(-1, NUM_GROUPS, GROUP)
    least = groups.amin(2).clamp(max=0).neg()  # what is subtracted
    spans = (groups.amax(2).clamp(min=0) + least) / MOST
    factor, factors = _in_6_bits(spans)
    minimum, minima = _in_6_bits(least)
    step = (factor * factors).unsqueeze(2)
    shifted = groups + (minimum * minima).unsqueeze(2)
    numbers = torch.where(step > 0, shifted / step, 0).round().clamp(0, MOST).to(torch.uint8)
    numbers = numbers.view(-1, NUM_GROUPS // 2, 2, GROUP)
    f, m = factors.to(torch.uint8), minima.to(torch.uint8)
    parts = [
        factor.half().view(torch.uint8),
        minimum.half().view(torch.uint8),
        f[:, :4] | f[:, 4:] >> 4 << 6,
        m[:, :4] | m[:, 4:] >> 4 << 6,
        f[:, 4:] & 15 | (m[:, 4:] & 15) << 4,
        (numbers[:, :, 0] | numbers[:, :, 1] << 4).reshape(-1, BLOCK // 2),
    ]
    return torch.cat(parts, dim=1).view(len(matrix), -1)


def _in_6_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 8) values ≥ 0 → what a block's whole numbers are multiplied by (n, 1), rounded to a
    half, and those numbers.
    """
    common = (values.amax(1, keepdim=True) / MOST_FACTOR).half().float()
    return common, torch.where(common > 0, values / common, 0).round().clamp(0, MOST_FACTOR)
