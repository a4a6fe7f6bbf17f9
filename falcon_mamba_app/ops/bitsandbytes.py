"""All calls of bitsandbytes: it quantises a matrix, and it describes what it has quantised.

The library is optional. Our own kernels read the quantised matrices.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from falcon_mamba_app.ops.reference.weight_4bit import NESTED_BLOCK, NestedAbsmax, Weight4bit


def why_unusable(device: torch.device) -> str | None:
    """One line that says what to install, or None if the library works."""
    if find_spec("bitsandbytes") is None:
        return "4-bit needs the package bitsandbytes: pip install bitsandbytes"
    try:
        from bitsandbytes import cextension
    except Exception as error:  # a broken installation raises many kinds
        return (
            f"bitsandbytes cannot be imported ({' '.join(str(error).split())[:150]}); reinstall it"
        )
    if isinstance(cextension.lib, cextension.ErrorHandlerMockBNBNativeLibrary) or (
        device.type == "cuda" and not cextension.lib.compiled_with_cuda
    ):
        built_for = torch.version.cuda or torch.version.hip or "the CPU"
        return (
            f"bitsandbytes has no library for torch's CUDA {built_for};"
            " pip install -U bitsandbytes, or a torch for another CUDA"
        )
    return None


def quantize(
    matrix: Tensor, *, kind: str, is_double: bool, compute_dtype: torch.dtype
) -> Weight4bit:
    """Quantise a matrix (outputs, inputs) in blocks of 64 with the library."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        matrix.contiguous(), blocksize=64, quant_type=kind, compress_statistics=is_double
    )
    return _weight(packed, state, compute_dtype)


def weight_of(module: nn.Module) -> Weight4bit | None:
    """The matrix of a linear module of the library, over the same tensors; None for other modules.

    Raises ValueError if such a module holds a matrix that is not quantised.
    """
    bitsandbytes = sys.modules.get("bitsandbytes")
    if bitsandbytes is None or not isinstance(module, bitsandbytes.nn.Linear4bit):
        return None
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        raise ValueError("a matrix is not in 4 bits, as config.json says it is")
    return _weight(module.weight.data, state, module.compute_dtype)


def _weight(packed: Tensor, state: Any, compute_dtype: torch.dtype) -> Weight4bit:
    """The matrix, from the library's record of its quantisation."""
    nested = None
    if state.state2 is not None:
        assert state.state2.blocksize == NESTED_BLOCK, state.state2.blocksize
        nested = NestedAbsmax(state.state2.code, state.state2.absmax, state.offset)
    return Weight4bit(
        packed=packed.view(torch.uint8).flatten(),
        absmax=state.absmax,
        code=state.code,
        shape=tuple(state.shape),
        blocksize=state.blocksize,
        kind=state.quant_type,
        compute_dtype=compute_dtype,
        nested=nested,
    )
