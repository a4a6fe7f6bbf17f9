"""The recurrence as a few operations, and the matrix products, with several implementations.

This package is the only code that knows kernels. All other code receives an `Ops`, chosen once by
`select.select_ops`, and calls it. Nothing here knows layers, sequences or checkpoints.

Read in this order: `contract` defines every operation; `reference/` computes each one in plain
torch, and every kernel is tested against it; `cpu/` and `triton/` are our kernels; `mamba_ssm`
calls the libraries' kernels instead; `bitsandbytes` quantises; `damage` finds compiled kernels that
are damaged on disk; `select` decides which of them a device gets.
"""

from __future__ import annotations

from falcon_mamba_app.ops.contract import REFERENCE, Ops
from falcon_mamba_app.ops.reference.matrix import total
from falcon_mamba_app.ops.reference.recurrence import ConvWeights, ScanWeights

__all__ = ["REFERENCE", "ConvWeights", "Ops", "ScanWeights", "total"]
