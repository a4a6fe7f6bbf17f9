"""The operations as Triton kernels for one GPU: `TRITON`, tested against `reference.REFERENCE`.

No launch here depends on what is on the device: grids come from shapes, and a kernel reads the
slots and the lengths itself. So nothing waits for the device, and a step can be captured in a CUDA
graph. Nothing is autotuned either: the trial runs would advance the live states. The block sizes
are those with which `benchmarks/kernels.py` was fastest on an H100.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.triton_conv import conv_prefill, conv_step
from falcon_mamba_app.ops.triton_linear import linear
from falcon_mamba_app.ops.triton_sample import sample_rows
from falcon_mamba_app.ops.triton_scan import scan_prefill, scan_step

# Values of one program. A row of 4096 fills it; narrow rows such as B's 16 share it.
NORM_VALUES = 4096


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype) -> Tensor:
    """`reference.rms_norm`, one program for each row, or for several that are narrow."""
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    x = x.reshape(-1, x.shape[-1])
    assert x.stride(1) == 1, x.stride()
    num_rows, m = x.shape
    columns = triton.next_power_of_2(m)
    rows = min(triton.next_power_of_2(num_rows), max(1, NORM_VALUES // columns))
    _rms_norm_kernel[(triton.cdiv(num_rows, rows),)](
        x, weight, y, num_rows, x.stride(0), eps, m, rows, columns,
        num_warps=min(8, max(1, rows * columns // 512)),
    )  # fmt: skip
    return y


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    num_rows,
    x_stride,
    eps,
    m: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    mask = (rows < num_rows)[:, None] & (columns < m)[None, :]
    x = tl.load(x_ptr + rows[:, None] * x_stride + columns[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / m + eps)[:, None]
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + columns, mask=columns < m, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + rows[:, None] * m + columns[None, :], y, mask=mask)


TRITON = Ops(
    name="triton",
    linear=linear,
    rms_norm=rms_norm,
    conv_prefill=conv_prefill,
    conv_step=conv_step,
    scan_prefill=scan_prefill,
    scan_step=scan_step,
    sample=sample_rows,
)
