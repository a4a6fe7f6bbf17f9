"""A matrix in the blocks of a GGUF file, and how each kind is decoded.

A block is 32 or 256 numbers of one row: small whole numbers, and what to multiply them by. In the
kinds ending in K that factor is itself a whole number of 6 or 8 bits times the block's, for each 16
or 32 numbers; Q4_K and Q5_K subtract such a product too. The bytes are the file's own; nothing here
copies them.

Layout: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# The numbers of a block, and its bytes.
BLOCKS = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_K": (256, 144), "Q5_K": (256, 176),
          "Q6_K": (256, 210)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WeightGgml:
    """A matrix (outputs, inputs) in blocks.

    data: (outputs, bytes of a row) uint8.  kind: a key of BLOCKS.
    """

    data: Tensor
    kind: str

    def __post_init__(self) -> None:
        assert self.data.dtype == torch.uint8 and self.data.dim() == 2, self.data.shape
        assert self.data.shape[1] % BLOCKS[self.kind][1] == 0, (self.data.shape, self.kind)

    @property
    def shape(self) -> torch.Size:
        block, block_bytes = BLOCKS[self.kind]
        return torch.Size((len(self.data), self.data.shape[1] // block_bytes * block))

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def part(self, rows: Tensor | slice) -> WeightGgml:
        """The matrix of these rows."""
        return WeightGgml(self.data[rows], self.kind)

    def tensors(self) -> Iterator[Tensor]:
        yield self.data


def dequantize(weight: WeightGgml, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs) in `dtype`, rounded once from fp32."""
    blocks = weight.data.reshape(-1, BLOCKS[weight.kind][1])
    return DECODERS[weight.kind](blocks).reshape(weight.shape).to(dtype)


def rows_of(weight: WeightGgml, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows (t,) of the matrix as (t, inputs) in `dtype`, as an embedding table gives them."""
    return dequantize(weight.part(rows), dtype)


def _q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(torch.int8).float()


def _q4_0(blocks: Tensor) -> Tensor:
    packed = blocks[:, 2:]
    values = torch.cat([packed & 15, packed >> 4], dim=1).to(torch.int8) - 8
    return _half(blocks[:, :2]) * values.float()


def _q4_k(blocks: Tensor) -> Tensor:
    low, high = blocks[:, 16:].reshape(-1, 4, 1, 32), blocks[:, 16:].reshape(-1, 4, 1, 32) >> 4
    return _with_minima(blocks, torch.cat([low & 15, high], dim=2))


def _q5_k(blocks: Tensor) -> Tensor:
    packed, fifth = blocks[:, 48:].reshape(-1, 4, 1, 32), blocks[:, 16:48].reshape(-1, 1, 1, 32)
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device).view(1, 4, 2, 1)
    return _with_minima(
        blocks, torch.cat([packed & 15, packed >> 4], dim=2) + ((fifth >> shifts & 1) << 4)
    )


def _with_minima(blocks: Tensor, values: Tensor) -> Tensor:
    """Eight groups of 32 values (n, 4, 2, 32), each with a factor and a number to subtract."""
    a, b, c = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    factors = torch.cat([a & 63, (c & 15) | (a >> 6 << 4)], dim=1).float()
    minima = torch.cat([b & 63, (c >> 4) | (b >> 6 << 4)], dim=1).float()
    factors, minima = _half(blocks[:, :2]) * factors, _half(blocks[:, 2:4]) * minima
    return factors.unsqueeze(2) * values.reshape(-1, 8, 32).float() - minima.unsqueeze(2)


def _q6_k(blocks: Tensor) -> Tensor:
    # Two halves of 128 numbers, each of four groups of 32; a group has two factors.
    four = blocks[:, :128].reshape(-1, 2, 1, 64)
    four = torch.cat([four & 15, four >> 4], dim=2).reshape(-1, 2, 4, 32)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device).view(1, 1, 4, 1)
    two = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    values = (four | two << 4).to(torch.int8) - 32
    factors = _half(blocks[:, 208:]) * blocks[:, 192:208].view(torch.int8).float()
    return factors.unsqueeze(2) * values.reshape(-1, 16, 16).float()


def _half(pair: Tensor) -> Tensor:
    """(n, 2) bytes of a float16 → (n, 1) fp32."""
    return pair.contiguous().view(torch.float16).float()


DECODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
