"""Matrices and checkpoints in 4 bits, made by bitsandbytes and by transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from falcon_mamba_app.ops.bitsandbytes import quantize
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from tests.support.checkpoints import make_tiny_checkpoint, make_tokenizer

FORMS = [("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True)]


def make_weight(
    num_outputs: int,
    num_inputs: int,
    kind: str = "nf4",
    *,
    is_double: bool = False,
    compute_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Weight4bit:
    """A random matrix as bitsandbytes quantises it on the device."""
    generator = torch.Generator(device).manual_seed(num_outputs + num_inputs)
    matrix = torch.randn(num_outputs, num_inputs, generator=generator, device=device)
    matrix *= num_inputs**-0.5
    return quantize(matrix, kind=kind, is_double=is_double, compute_dtype=compute_dtype)


def config_of(kind: str, *, is_double: bool, compute: str = "float32") -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=is_double,
        bnb_4bit_compute_dtype=compute,
    )


def of_transformers(folder: Path, *, device: torch.device | str = "cpu", **options: Any) -> Any:
    """transformers' own model over bitsandbytes' modules, in fp32.

    Two of bitsandbytes' ways are kept out, on processors with AVX-512: with bf16 it repacks the
    matrices and computes in bf16, whatever was asked; and it mixes up the scales of a matrix whose
    rows are no whole blocks. There its portable code dequantises, as on all other processors.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32, device_map={"": device}, **options).eval()
    modules: list[tuple[str, Any]] = list(model.named_modules())
    for name, module in modules:
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if module.in_features % 64:
                setattr(module, "forward", partial(_portable_forward, module))  # noqa: B010
            # Its code for the plain Mamba multiplies by dt_proj's packed bytes.
            if model.config.model_type == "mamba" and name.endswith("dt_proj"):
                model.set_submodule(name, _dense(module))
    return model


def _dense(module: Any) -> nn.Linear:
    linear = nn.Linear(module.in_features, module.out_features)
    linear.weight, linear.bias = nn.Parameter(_portable_matrix(module)), module.bias
    return linear


def _portable_matrix(module: Any) -> Tensor:
    state, packed = module.weight.quant_state, module.weight.data.flatten()
    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(absmax, state.state2) + state.offset
    matrix: Tensor = _dequantize_4bit_compute(
        packed, absmax, state.code, state.blocksize, state.shape, module.compute_dtype
    )
    return matrix


def _portable_forward(module: Linear4bit, x: Tensor) -> Tensor:
    matrix = _portable_matrix(module)
    bias = None if module.bias is None else module.bias.to(matrix.dtype)
    return F.linear(x.to(matrix.dtype), matrix, bias).to(x.dtype)


def save_quantized(
    source: Path,
    folder: Path,
    config: BitsAndBytesConfig,
    *,
    device: torch.device | str = "cpu",
) -> Path:
    """`source` quantised, as `save_pretrained` leaves it."""
    AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, device_map={"": device}, quantization_config=config
    ).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_quantized_checkpoint(folder: Path, kind: str, *, is_double: bool, **options: Any) -> Path:
    source = make_tiny_checkpoint(folder / "source", **options)
    return save_quantized(source, folder / "in_4bit", config_of(kind, is_double=is_double))
