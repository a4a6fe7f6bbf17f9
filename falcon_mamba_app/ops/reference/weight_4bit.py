"""A matrix in bitsandbytes' 4-bit storage, and how it is decoded.

Each number is one of 16 code values times the largest magnitude of its block: `blocksize` numbers
along the flattened matrix (QLoRA, arXiv 2305.14314, §3). With double quantisation that magnitude
itself has 8 bits. The tensors are the checkpoint's own; nothing here copies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

NESTED_BLOCK = 256  # block magnitudes that share one scale


@dataclass(frozen=True, slots=True)
class NestedAbsmax:
    """Double quantisation: magnitude i is code[absmax[i]]·scale[i // 256] + offset.

    code: (256,) fp32.  scale: (blocks/256,) fp32.  offset: () fp32.
    """

    code: Tensor
    scale: Tensor
    offset: Tensor


@dataclass(frozen=True, slots=True)
class Weight4bit:
    """A matrix (outputs, inputs) in 4 bits.

    packed: (outputs·inputs/2,) uint8, the first number of two in the upper four bits.
    absmax: (blocks,) fp32, or uint8 with `nested`.  code: (16,) fp32.
    compute_dtype: the dtype of products, whatever the activations' dtype.
    """

    packed: Tensor
    absmax: Tensor
    code: Tensor
    shape: tuple[int, int]
    blocksize: int
    kind: str  # "nf4" or "fp4"
    compute_dtype: torch.dtype
    nested: NestedAbsmax | None = None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.packed, self.absmax, self.code)
        if self.nested is not None:
            yield from (self.nested.code, self.nested.scale, self.nested.offset)

    def to(self, device: torch.device | str) -> Weight4bit:
        """The same matrix on another device."""
        nested = self.nested and NestedAbsmax(
            *(part.to(device) for part in (self.nested.code, self.nested.scale, self.nested.offset))
        )
        packed, absmax, code = (part.to(device) for part in (self.packed, self.absmax, self.code))
        return replace(self, packed=packed, absmax=absmax, code=code, nested=nested)


def dequantize(weight: Weight4bit, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs) in `dtype`, rounded once from fp32."""
    codes = torch.stack([weight.packed >> 4, weight.packed & 15], dim=-1).flatten()
    num_values = weight.shape[0] * weight.shape[1]
    values = weight.code[codes[:num_values].int()]
    magnitudes = block_absmax(weight).repeat_interleave(weight.blocksize)[:num_values]
    return (values * magnitudes).view(weight.shape).to(dtype)


def block_absmax(weight: Weight4bit) -> Tensor:
    """(blocks,) fp32, each block's largest magnitude."""
    nested = weight.nested
    if nested is None:
        return weight.absmax
    scale = nested.scale.repeat_interleave(NESTED_BLOCK)[: len(weight.absmax)]
    return nested.code[weight.absmax.int()] * scale + nested.offset
