"""The operations as Triton kernels for one GPU: `TRITON`, tested against `reference.REFERENCE`.

No launch here depends on what is on the device: grids come from shapes, and a kernel reads the
slots and the lengths itself. So nothing waits for the device, and a step can be captured in a CUDA
graph. Nothing is autotuned either: the trial runs would advance the live states. The block sizes
are those with which `benchmarks/kernels.py` was fastest on an H100.
"""

from __future__ import annotations

from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.triton import linear_4bit as four_bit
from falcon_mamba_app.ops.triton.conv import conv_prefill, conv_step
from falcon_mamba_app.ops.triton.in_proj_step import projected_conv_step
from falcon_mamba_app.ops.triton.linear import linear, linear_addends
from falcon_mamba_app.ops.triton.next_token import feed, hand_on
from falcon_mamba_app.ops.triton.norm import add_rms_norm, rms_norm, split_rms_norm
from falcon_mamba_app.ops.triton.sampling import sample_rows
from falcon_mamba_app.ops.triton.scan import scan_prefill, scan_step
from falcon_mamba_app.ops.triton.x_proj_step import projected_scan_step


class _FusedOps(Ops):
    """What `Ops` composes, as one kernel each."""

    linear_addends = staticmethod(linear_addends)
    linear_4bit = staticmethod(four_bit.linear)
    linear_4bit_addends = staticmethod(four_bit.linear_addends)
    add_rms_norm = staticmethod(add_rms_norm)
    split_rms_norm = staticmethod(split_rms_norm)
    projected_conv_step = projected_conv_step
    projected_scan_step = projected_scan_step


TRITON = _FusedOps(
    name="triton",
    linear=linear,
    dequantize=four_bit.dequantize,
    rms_norm=rms_norm,
    conv_prefill=conv_prefill,
    conv_step=conv_step,
    scan_prefill=scan_prefill,
    scan_step=scan_step,
    sample=sample_rows,
    feed=feed,
    hand_on=hand_on,
    can_capture_steps=True,
    can_capture_prompts=True,
)
