"""Models to measure: the bundled one, or the real 7B shape with random weights that remember.

Speed does not depend on the values of the weights. They are drawn as Mamba's own initialisation
draws them (embeddings with a deviation of 0.1, out_proj divided by √layers): without it the layers
amplify every rounding, transformers' and ours alike, tenfold over a trained model's. The decays are
slow (A from -1 to -16, small time steps), so that states matter and a wrong one would show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.lib.blocks import to_blocks
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.in_8bit import HEAD, TABLE, put_in_8bit
from falcon_mamba_app.model.in_blocks import put_in_blocks
from falcon_mamba_app.model.linear import Linear, weights_bytes
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.bitsandbytes import quantize, why_unusable
from falcon_mamba_app.ops.reference.weight_ggml import BLOCKS
from falcon_mamba_app.settings import ModelSettings

FALCON_MAMBA_7B = ModelConfig(
    family="falcon_mamba",
    num_layers=64,
    hidden_size=4096,
    d_inner=8192,
    d_state=16,
    d_conv=4,
    dt_rank=256,
    vocab_size=65_024,
    tie_word_embeddings=False,
)


def bundled_model(ops: Ops, device: torch.device, dtype: torch.dtype) -> FalconMamba:
    """The model in assets/nano."""
    model = load_model(
        locate(ModelSettings(model="nano"), has_cuda=False),
        device=device,
        dtype=dtype,
        make_model=lambda config: FalconMamba(config, ops),
    )
    assert isinstance(model, FalconMamba)
    return model


@functools.cache
def random_7b(
    ops: Ops, device: torch.device, dtype: torch.dtype, *, num_layers: int = 64
) -> FalconMamba:
    """The 7B shape, or its first `num_layers` layers; the same module when asked again."""
    torch.manual_seed(0)
    config = replace(FALCON_MAMBA_7B, num_layers=num_layers)
    with torch.device("meta"):
        model = FalconMamba(config, ops).to(dtype)
    model.to_empty(device=device)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        else:
            nn.init.ones_(weight)
        if name.endswith("conv1d.bias"):
            nn.init.zeros_(weight)
        if name == "backbone.embeddings.weight":
            nn.init.normal_(weight, std=0.1)
    steps = torch.logspace(-3, -1, config.d_inner, device=device)
    decays = torch.arange(1.0, config.d_state + 1, device=device).log()
    layers: Iterable[Any] = model.backbone.layers
    for layer in layers:
        layer.mixer.out_proj.weight.data.div_(FALCON_MAMBA_7B.num_layers**0.5)
        layer.mixer.dt_proj.bias.data.copy_(steps + torch.log(-torch.expm1(-steps)))
        layer.mixer.A_log.data.copy_(decays.expand_as(layer.mixer.A_log))
    model.prepare()
    return model


@functools.cache
def in_form(model: FalconMamba, form: str) -> FalconMamba:
    """The model itself for "none"; for "int8" one with every matrix in 8 bits; for a kind of GGML's
    blocks one with every matrix in these; for "nf4", "fp4" and the two with " double" one that has
    its layers' matrices in 4 bits. All else are the same tensors.
    """
    if form == "none":
        return model
    with torch.device("meta"):
        packed = FalconMamba(model.config, model.ops)
    packed.load_state_dict(model.state_dict(), assign=True)
    if form == "int8":
        put_in_8bit(packed, dtype=model.dtype)
        packed.prepare()
        return packed
    if form in BLOCKS:
        names = [name for name, module in packed.named_modules() if isinstance(module, Linear)]
        names = [name for name in names if name != HEAD or not model.config.tie_word_embeddings]
        matrices = {
            name: to_blocks(packed.get_parameter(f"{name}.weight").detach(), form)
            for name in (TABLE, *names)
        }
        put_in_blocks(packed, matrices, dtype=model.dtype)
        packed.prepare()
        return packed
    kind, _, double = form.partition(" ")
    _quantize_(packed, kind=kind, is_double=bool(double), compute_dtype=model.dtype)
    packed.prepare()
    return packed


def _quantize_(
    model: FalconMamba, *, kind: str, is_double: bool, compute_dtype: torch.dtype
) -> None:
    """Put the matrices of the layers into 4 bits, one after the other; head and table stay."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, Linear) and ".mixer." in name
    ]
    for name, module in layers:
        weight = quantize(
            module.weight.data, kind=kind, is_double=is_double, compute_dtype=compute_dtype
        )
        bias = None if module.bias is None else module.bias.data
        model.set_submodule(name, module.in_4bit(weight, bias))


def forms(asked: list[str], device: torch.device) -> list[str]:
    """The requested forms that can be made here; the others are named on the terminal."""
    if device.type != "cpu":  # blocks stay packed on the CPU alone
        asked = [form for form in asked if form not in BLOCKS]
    why, ours = why_unusable(device), ("none", "int8", *BLOCKS)
    if why is None or all(form in ours for form in asked):
        return asked
    print(f"not measured: {', '.join(form for form in asked if form not in ours)} ({why})")
    return [form for form in asked if form in ours]


def resident_bytes(model: FalconMamba) -> int:
    """The bytes of all that the model holds, derived constants included."""
    layers: Iterable[Any] = model.backbone.layers
    mixers = [layer.mixer for layer in layers]
    derived = [(m.conv.weight, m.scan.A, m.scan.D, m.scan.dt_bias) for m in mixers]
    derived_bytes: int = sum(tensor.nbytes for part in derived for tensor in part)
    return weights_bytes(model) + derived_bytes
