"""Fused steps of a layer by several implementations, on the same random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.ops import Ops, ScanWeights


def projected_scans(
    implementations: Sequence[Ops],
    dt_weight: Any,
    *,
    num_rows: int,
    d: int,
    r: int,
    device: torch.device,
) -> list[tuple[Tensor, Tensor]]:
    """What each makes of the step from x_proj to the gate: y (rows, d) and the states after it."""
    n = 16
    scan = ScanWeights(
        A=-torch.rand(n, d).to(device),
        D=torch.randn(d).to(device),
        dt_bias=torch.randn(d).to(device),
    )
    x, z = (torch.randn(num_rows, d).to(device) for _ in range(2))
    addends = torch.randn(1, num_rows, r + 2 * n).to(device)
    states = torch.randn(num_rows + 1, n, d).to(device)
    slots = torch.arange(num_rows, 0, -1, device=device)
    found = []
    for ops in implementations:
        own = states.clone()
        y = ops.projected_scan_step(
            x, scan, addends=addends, sizes=[r, n, n], eps=1e-6, dt_weight=dt_weight, z=z,
            ssm_states=own, slots=slots,
        )  # fmt: skip
        found.append((y, own))
    return found
