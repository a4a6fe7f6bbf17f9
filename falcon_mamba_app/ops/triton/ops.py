"""The operations as Triton kernels for one GPU, tested against `ops.REFERENCE`.

No launch here depends on values on the device: grids follow from shapes, and a kernel reads the
slots and the lengths itself. So nothing waits for the device, and a step can be captured in a CUDA
graph. Nothing is autotuned, because the trial runs would advance the live states. The block sizes
are the fastest ones of `benchmarks/kernels.py` on an H100.
"""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights
from falcon_mamba_app.ops.reference.matrix import Matrix, Packed
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.triton import (
    allowed_tokens,
    conv,
    few_rows_4bit,
    in_proj_step,
    linear,
    linear_4bit,
    linear_8bit,
    next_token,
    norm,
    sampling,
    scan,
    x_proj_step,
)


class TritonOps(Ops):
    """Each operation by one kernel, or by the kernels of its parts where none applies."""

    name = "triton"
    can_capture_steps = True
    can_capture_prompts = True

    matmul_prompt = staticmethod(linear.matmul)
    matmul_step = staticmethod(linear.matmul)
    matmul_prompt_addends = staticmethod(linear.matmul_addends)
    matmul_step_addends = staticmethod(linear.matmul_addends)
    matmul_4bit_prompt = staticmethod(linear_4bit.matmul)
    matmul_4bit_step = staticmethod(linear_4bit.matmul)
    matmul_4bit_prompt_addends = staticmethod(linear_4bit.matmul_addends)
    matmul_4bit_step_addends = staticmethod(linear_4bit.matmul_addends)
    rms_norm = staticmethod(norm.rms_norm)
    add_rms_norm = staticmethod(norm.add_rms_norm)
    split_rms_norm = staticmethod(norm.split_rms_norm)
    conv_prefill = staticmethod(conv.conv_prefill)
    conv_step = staticmethod(conv.conv_step)
    scan_prefill = staticmethod(scan.scan_prefill)
    scan_step = staticmethod(scan.scan_step)
    next_inputs = staticmethod(next_token.next_inputs)
    allow_only = staticmethod(allowed_tokens.allow_only)
    sample = staticmethod(sampling.sample)
    remember_tokens = staticmethod(next_token.remember_tokens)

    def dequantize(self, weight: Weight4bit | Packed, dtype: torch.dtype) -> Tensor:
        if isinstance(weight, Weight8bit):
            return linear_8bit.dequantize(weight, dtype)
        if isinstance(weight, Weight4bit):
            return linear_4bit.dequantize(weight, dtype)
        return super().dequantize(weight, dtype)

    def rows_of(self, weight: Packed, rows: Tensor, dtype: torch.dtype) -> Tensor:
        if isinstance(weight, Weight8bit):
            return linear_8bit.rows_of(weight, rows, dtype)
        return super().rows_of(weight, rows, dtype)

    def projected_conv_step(
        self,
        x: Tensor,
        weight: Matrix | Weight4bit,
        bias: Tensor | None,
        conv: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if isinstance(weight, Weight4bit):
            if few_rows_4bit.convolves(x, weight, bias, conv):
                return few_rows_4bit.projected_conv_step(
                    x, weight, conv, conv_states=conv_states, slots=slots
                )
        elif in_proj_step.is_faster(x, weight, bias, conv):
            return in_proj_step.projected_conv_step(
                x, weight, conv, conv_states=conv_states, slots=slots
            )
        return super().projected_conv_step(
            x, weight, bias, conv, conv_states=conv_states, slots=slots
        )

    def projected_scan_step(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        addends: Tensor,
        sizes: list[int],
        eps: float | None,
        dt_weight: Matrix | Weight4bit,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        if eps is not None and x_proj_step.is_faster(addends, dt_weight):
            return x_proj_step.projected_scan_step(
                x,
                weights,
                addends=addends,
                eps=eps,
                dt_weight=dt_weight,
                z=z,
                ssm_states=ssm_states,
                slots=slots,
            )
        return super().projected_scan_step(
            x,
            weights,
            addends=addends,
            sizes=sizes,
            eps=eps,
            dt_weight=dt_weight,
            z=z,
            ssm_states=ssm_states,
            slots=slots,
        )


TRITON = TritonOps()
