"""Compiles every kernel of the CPU before the first request, or loads it from the cache."""

from __future__ import annotations

import logging
import time

import torch

from falcon_mamba_app.ops import ConvWeights, ScanWeights
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.cpu.tensors import KINDS
from falcon_mamba_app.ops.reference.sampling import Column
from falcon_mamba_app.ops.reference.weight_8bit import quantize

logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Compile every kernel for both dtypes, or load it from the cache."""
    began = time.perf_counter()
    with torch.inference_mode():
        for dtype in KINDS:
            _run_every_operation(dtype, d=4, n=2, k=2)
        NUMBA.allow_only(torch.zeros(1, 2), torch.ones(1, 1, dtype=torch.int32))
        NUMBA.sample(torch.zeros(1, 2), torch.zeros(1, len(Column)))
    logger.info("numba kernels are ready after %.1f s", time.perf_counter() - began)


def _run_every_operation(dtype: torch.dtype, *, d: int, n: int, k: int) -> None:
    x, B = torch.zeros(1, d, dtype=dtype), torch.zeros(1, n, dtype=dtype)
    conv = ConvWeights(torch.zeros(k, d, dtype=dtype), None)
    scan = ScanWeights(A=torch.zeros(n, d), D=torch.zeros(d), dt_bias=torch.zeros(d))
    conv_rows = {"conv_states": torch.zeros(1, k - 1, d, dtype=dtype), "slots": torch.tensor([0])}
    scan_rows = {"ssm_states": torch.zeros(1, n, d), "slots": conv_rows["slots"]}
    query_starts = torch.tensor([0, 1])
    NUMBA.matmul_step(x, conv.weight, None)
    in_8bit = quantize(conv.weight)
    NUMBA.matmul_step(x, in_8bit, None)
    NUMBA.dequantize(in_8bit, dtype)
    NUMBA.rms_norm(x, None, 1.0, dtype)
    for residual in (x, x.float()):
        NUMBA.rms_norm(residual, x[0], 1.0, dtype)
    NUMBA.add_rms_norm(x.float(), x.unsqueeze(0), x[0], 1.0, dtype)
    NUMBA.projected_conv_step(x, torch.zeros(2 * d, d, dtype=dtype), None, conv, **conv_rows)
    NUMBA.conv_step(x, conv, **conv_rows)
    NUMBA.conv_prefill(x, conv, **conv_rows, query_starts=query_starts)
    for eps in (1.0, None):
        NUMBA.projected_scan_step(
            x, scan, addends=torch.zeros(1, 1, 1 + 2 * n, dtype=dtype), sizes=[1, n, n], eps=eps,
            dt_weight=torch.zeros(d, 1, dtype=dtype), z=x, **scan_rows,
        )  # fmt: skip
    NUMBA.scan_step(x, scan, dt=x, B=B, C=B, z=x, **scan_rows)
    NUMBA.scan_prefill(x, scan, dt=x, B=B, C=B, z=x, **scan_rows, query_starts=query_starts)
