"""The weights of a GGUF file under the names and in the form of our modules.

Numbers are exactly those that the file's type stands for: unpacked by the package `gguf`, a few
rows at a time, or left in the file's own blocks. Types that cannot be unpacked are refused by name.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from math import prod

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from falcon_mamba_app.checkpoint.gguf.header import (
    Header,
    TensorPlace,
    mapped,
    mapped_for_good,
)
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.ops.reference.weight_ggml import BLOCKS, WeightGgml

Kind = GGMLQuantizationType
TYPES = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)
WHOLE = {
    "token_embd.weight": "backbone.embeddings.weight",
    "output_norm.weight": "backbone.norm_f.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm.weight": "norm.weight",
    "ssm_in.weight": "mixer.in_proj.weight", "ssm_in.bias": "mixer.in_proj.bias",
    "ssm_conv1d.weight": "mixer.conv1d.weight", "ssm_conv1d.bias": "mixer.conv1d.bias",
    "ssm_x.weight": "mixer.x_proj.weight",
    "ssm_dt.weight": "mixer.dt_proj.weight", "ssm_dt.bias": "mixer.dt_proj.bias",
    "ssm_a": "mixer.A_log", "ssm_d": "mixer.D",
    "ssm_out.weight": "mixer.out_proj.weight", "ssm_out.bias": "mixer.out_proj.bias",
}  # fmt: skip
# The modules of matrices, whose products read blocks.
PRODUCTS = (
    "embeddings.weight", "lm_head.weight", "in_proj.weight", "x_proj.weight", "dt_proj.weight",
    "out_proj.weight",
)  # fmt: skip
DENSE = {Kind.F32: torch.float32, Kind.BF16: torch.bfloat16}
SLICE_NUMBERS = 2**24  # unpacked at a time: 64 MiB in fp32


def our_name(name: str) -> str | None:
    """The name of a file's tensor in our modules; None for one that no Mamba has."""
    if name in WHOLE:
        return WHOLE[name]
    head, _, rest = name.removeprefix("blk.").partition(".")
    if not name.startswith("blk.") or not head.isdecimal() or rest not in IN_LAYER:
        return None
    return f"backbone.layers.{int(head)}.{IN_LAYER[rest]}"


def check_tensors(header: Header, config: ModelConfig) -> None:
    """Raises CheckpointError for the first tensor that is missing, unknown, of another shape or of
    a type that is not read here.
    """
    expected = shapes(config)
    for name, place in header.tensors.items():
        ours = our_name(name)
        if ours not in expected:
            raise CheckpointError(
                f"{header.path.name} holds {name!r}, which a {config.family} of its dimensions"
                " does not have"
            )
        if place.kind not in TYPES:
            raise CheckpointError(
                f"{header.path.name} holds {name!r} as {place.kind.name}; this app reads "
                + ", ".join(kind.name for kind in TYPES)
            )
        if prod(place.shape) != prod(expected[ours]):
            raise CheckpointError(
                f"{header.path.name}: {name} has the shape {place.shape} where its dimensions"
                f" imply {expected[ours]}"
            )
    missing = sorted(set(expected) - {our_name(name) for name in header.tensors})
    if missing:
        raise CheckpointError(
            f"{header.path.name} lacks {len(missing)} of the model's weights, {missing[0]} first"
        )


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights by their names in our modules; a tied head is not among them."""
    h, d, n, r = config.hidden_size, config.d_inner, config.d_state, config.dt_rank
    layer: dict[str, tuple[int, ...]] = {
        "norm.weight": (h,),
        "mixer.in_proj.weight": (2 * d, h),
        "mixer.conv1d.weight": (d, 1, config.d_conv),
        "mixer.x_proj.weight": (r + 2 * n, d),
        "mixer.dt_proj.weight": (d, r),
        "mixer.dt_proj.bias": (d,),
        "mixer.A_log": (d, n),
        "mixer.D": (d,),
        "mixer.out_proj.weight": (h, d),
    }
    if config.use_conv_bias:
        layer["mixer.conv1d.bias"] = (d,)
    if config.use_bias:
        layer |= {"mixer.in_proj.bias": (2 * d,), "mixer.out_proj.bias": (h,)}
    found: dict[str, tuple[int, ...]] = {
        "backbone.embeddings.weight": (config.vocab_size, h),
        "backbone.norm_f.weight": (h,),
    }
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (config.vocab_size, h)
    for number in range(config.num_layers):
        found |= {f"backbone.layers.{number}.{name}": shape for name, shape in layer.items()}
    return found


def read_tensors(
    header: Header, config: ModelConfig, dtype: torch.dtype, fp32: frozenset[str]
) -> Iterator[tuple[str, Tensor]]:
    """Every weight with its name in our modules, in `dtype`; those in `fp32` stay in fp32."""
    with mapped(header.path) as data:
        for place in header.tensors.values():
            yield _read(data, place, config, dtype, fp32)


def read_as_stored(
    header: Header, config: ModelConfig, dtype: torch.dtype, fp32: frozenset[str]
) -> Iterator[tuple[str, Tensor | WeightGgml]]:
    """`read_tensors`, but what needs no change stays in the file, which is mapped into memory as
    long as they live: matrices in blocks, and whatever is in `dtype` already.
    """
    kept = mapped_for_good(header.path)
    with mapped(header.path) as data:
        for place in header.tensors.values():
            ours = our_name(place.name)
            assert ours is not None, f"{place.name} was checked"
            if is_kept_in_blocks(place):
                matrix = _touched(kept, place).view(place.shape[0], -1)
                yield ours, WeightGgml(matrix, place.kind.name)
            elif len(place.shape) == 2 and DENSE.get(place.kind) == dtype and "A_log" not in ours:
                yield ours, _touched(kept, place).view(dtype).view(shapes(config)[ours])
            else:
                yield _read(data, place, config, dtype, fp32)


def is_kept_in_blocks(place: TensorPlace) -> bool:
    """Whether it is a matrix that products read in its blocks."""
    name = our_name(place.name) or ""
    return place.kind.name in BLOCKS and len(place.shape) == 2 and name.endswith(PRODUCTS)


def kinds_of_blocks(header: Header) -> list[str]:
    """The kinds of matrices that can be kept in their blocks, the most bytes first."""
    num_bytes: Counter[str] = Counter()
    for place in header.tensors.values():
        if is_kept_in_blocks(place):
            num_bytes[place.kind.name] += place.num_bytes
    return [kind for kind, _ in num_bytes.most_common()]


def _touched(kept: mmap.mmap, place: TensorPlace) -> Tensor:
    """The tensor's bytes where they are mapped, each page read from the disk once."""
    found = torch.frombuffer(kept, dtype=torch.uint8, count=place.num_bytes, offset=place.offset)
    found[:: mmap.PAGESIZE].max()
    return found


def _read(
    data: mmap.mmap,
    place: TensorPlace,
    config: ModelConfig,
    dtype: torch.dtype,
    fp32: frozenset[str],
) -> tuple[str, Tensor]:
    ours = our_name(place.name)
    assert ours is not None, f"{place.name} was checked"
    last = ours.rpartition(".")[2]
    tensor = unpacked(data, place, torch.float32 if last in fp32 else dtype)
    tensor = tensor.reshape(shapes(config)[ours])
    return ours, logarithm(tensor) if last == "A_log" else tensor


def unpacked(data: mmap.mmap, place: TensorPlace, dtype: torch.dtype) -> Tensor:
    """The tensor's numbers in `dtype`, a few rows at a time."""
    block, block_bytes = GGML_QUANT_SIZES[place.kind]
    row, num_rows = place.shape[-1], prod(place.shape[:-1])
    row_bytes = row // block * block_bytes
    result = torch.empty(num_rows, row, dtype=dtype)
    step = max(1, SLICE_NUMBERS // row)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        start = place.offset + first * row_bytes
        raw = np.frombuffer(bytearray(data[start : start + (last - first) * row_bytes]), np.uint8)
        numbers = gguf.quants.dequantize(raw.reshape(last - first, row_bytes), place.kind)
        result[first:last] = torch.from_numpy(numbers.astype(np.float32, copy=False))
    return result.reshape(place.shape)


def logarithm(A: Tensor) -> Tensor:
    """A_log of A = -exp(A_log): the fp32 number that gives the same A again, where there is one.

    Raises CheckpointError unless all of A is negative, as of every state that fades.
    """
    if not bool((A < 0).all()):
        raise CheckpointError("the file's ssm_a has numbers that are not negative; it is damaged")
    best = (-A.double()).log().float()
    error = (-best.exp() - A).abs()
    for direction in (float("inf"), float("-inf")):
        candidate = best.clone()
        for _ in range(2):
            candidate = torch.nextafter(candidate, torch.full_like(candidate, direction))
            apart = (-candidate.exp() - A).abs()
            best = torch.where(apart < error, candidate, best)
            error = torch.minimum(apart, error)
    return best
