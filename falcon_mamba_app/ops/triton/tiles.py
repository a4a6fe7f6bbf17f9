"""The tiles of the matrix products: what one program works on, by the shape of the matrix.

They depend on the shape, the storage and the number of rows alone. So a row's result depends on the
other rows of its batch through their number only: 1, up to 16, 32, 64 and more rows sum the same
products in different orders, and may differ in the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton

from falcon_mamba_app.ops.triton.device import current_gpu


@dataclass(frozen=True, slots=True)
class RowTile:
    outputs: int
    inputs: int
    warps: int


@dataclass(frozen=True, slots=True)
class Tile:
    outputs: int
    inputs: int
    stages: int  # stages − 1 tiles are loading at a time
    warps: int


def row_tile(values: torch.Tensor) -> RowTile:
    """For one row; measured inside a decode step, on an H100 and an H200: with 16 warps x_proj is
    faster alone, but 0.5 µs slower in the step; out_proj makes the whole step 2 % faster.
    """
    num_outputs, num_inputs = values.shape
    power_of_two = num_inputs & -num_inputs  # the largest one that divides it
    if values.dtype == torch.int8:
        return _row_tile_8bit(num_outputs, num_inputs, power_of_two)
    if num_inputs < 1024:
        return RowTile(8, power_of_two, 1)
    # x_proj has 288 outputs: two per program would leave most multiprocessors with one program.
    if num_outputs < 1024:
        return RowTile(1, min(power_of_two, 8192), 8)
    if num_inputs >= 8192:
        return RowTile(2, min(power_of_two, 4096), 16)
    return RowTile(2, min(power_of_two, 2048), 4)


def _row_tile_8bit(num_outputs: int, num_inputs: int, power_of_two: int) -> RowTile:
    """The fastest of about thirty tiles per shape alone, and then of four inside a decode step, on
    an H200.
    """
    if num_inputs < 1024:
        return RowTile(8, power_of_two, 1)
    if num_outputs < 1024:
        return RowTile(1, min(power_of_two, 8192), 8)
    if num_inputs >= 8192:
        return RowTile(4, min(power_of_two, 4096), 4)
    return RowTile(4, min(power_of_two, 2048), 2)


def rows_tile(x: torch.Tensor, values: torch.Tensor, num_addends: int) -> tuple[int, Tile]:
    """The number of rows to compute, and the tile of the matrix that one program works on."""
    num_rows = len(x)
    rows = max(16, triton.next_power_of_2(num_rows))
    length = values.shape[1] // num_addends
    tile_of = _tile_8bit if values.dtype == torch.int8 else _tile
    wanted = tile_of(values.shape[0], values.shape[1], num_rows)
    tile = fitting(
        replace(wanted, inputs=min(wanted.inputs, length & -length)),
        rows=rows,
        length=length,
        weight_bytes=values.element_size(),
        value_bytes=x.element_size(),
        shared_bytes=current_gpu().shared_bytes,
    )
    return rows, tile


def _tile(num_outputs: int, num_inputs: int, num_rows: int) -> Tile:
    """The fastest of about ten tiles per shape, with 8, 32 and 64 rows on an H100."""
    if num_inputs < 1024:
        return Tile(outputs=128, inputs=256, stages=2, warps=8)
    if num_outputs >= 16384:
        return Tile(outputs=128, inputs=128, stages=3, warps=8)
    if num_outputs >= 1024:
        return Tile(outputs=64, inputs=128, stages=5, warps=4)
    # x_proj: the inputs of more rows leave less room for weights.
    if num_rows > 32:
        return Tile(outputs=64, inputs=128, stages=4, warps=4)
    return Tile(outputs=64, inputs=256, stages=2, warps=4)


def _tile_8bit(num_outputs: int, num_inputs: int, num_rows: int) -> Tile:
    """The fastest of 20 to 80 tiles per shape, with 8, 32 and 64 rows on an H200. A tile is
    converted on its way to the matrix units, meanwhile others load: few rows want many small ones.
    """
    if num_inputs < 1024:
        return Tile(outputs=64, inputs=256, stages=2, warps=4)
    if num_outputs >= 1024:
        if num_rows <= 16:
            return Tile(outputs=32, inputs=256, stages=4, warps=4)
        if num_rows <= 32:
            return Tile(outputs=64, inputs=128, stages=6, warps=4)
        if num_outputs < 16384:
            return Tile(outputs=64, inputs=128, stages=4, warps=4)
        return Tile(outputs=128, inputs=128, stages=4, warps=8)
    if num_rows > 32:
        return Tile(outputs=64, inputs=128, stages=6, warps=4)
    return Tile(outputs=64, inputs=512, stages=2, warps=4)


def fitting(
    tile: Tile, *, rows: int, length: int, weight_bytes: int, value_bytes: int, shared_bytes: int
) -> Tile:
    """The tile, with its stages reduced to fit a GPU's shared memory; if fewer than three stages
    would fit, its inputs are reduced. `length`: the inputs that a program works through.
    """
    bytes_of_stage = (tile.outputs * weight_bytes + rows * value_bytes) * tile.inputs
    num_stages = shared_bytes // bytes_of_stage - 1  # the tile read ahead has its own place
    is_loop = tile.inputs < length
    if num_stages >= min(tile.stages, 3) or (not is_loop and num_stages >= 0):
        return replace(tile, stages=min(tile.stages, max(num_stages, 1)))
    half = replace(tile, inputs=tile.inputs // 2, stages=2 * tile.stages)
    return fitting(
        half,
        rows=rows,
        length=length,
        weight_bytes=weight_bytes,
        value_bytes=value_bytes,
        shared_bytes=shared_bytes,
    )


def num_addends(values: torch.Tensor) -> int:
    """Enough addends that 7B's tiles give 80 to 128 programs, in 8 bits 80 to 512; an H100 runs 132
    at a time.
    """
    num_outputs, shares = values.shape[0], values.shape[1] // 256
    if num_outputs >= 16384:
        return 1
    few = 4 if values.dtype == torch.int8 else 2
    return min(few if num_outputs >= 1024 else 16, shares & -shares)
