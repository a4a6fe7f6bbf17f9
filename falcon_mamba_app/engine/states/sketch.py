"""A picture of a state: a few hundred cells, the same for the same state on every machine.

A row is a layer (or several), a column a group of channels. Each cell has two values of four bits:
how much the group holds (the logarithm of its root mean square, within the state's own range), and
how its numbers add up under fixed random signs, which gives every state a face of its own. Of a
large state a part is read, from decays fast and slow: all of the 7B's would take a CPU 64 ms.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache

import torch
from torch import Tensor

MAX_ROWS = 32  # the 64 layers of the 7B model in pairs
MAX_COLUMNS = 64
MAX_VALUES = 2**20  # of a state that are read
LEVELS = 16
SIGN_RANGE = 2.5  # standard deviations that the levels of the signed sum cover
TINY = 1e-12


def sketch(ssm: Tensor) -> str:
    """The picture of one sequence's state.

    Args:
        ssm: (l, n, d) fp32, on any device; it is only read.

    Returns:
        "rows×columns" as "12x64:", and the cells row by row in base64: one byte each, the amount in
        its upper four bits, the signed sum in its lower four.
    """
    ssm = ssm[:, :: -(-ssm.numel() // MAX_VALUES)]
    num_layers, num_states, num_channels = ssm.shape
    per_row = -(-num_layers // MAX_ROWS)
    num_columns = _divisor(num_channels, MAX_COLUMNS)
    num_rows = -(-num_layers // per_row)
    energy, total = _sums(ssm, num_columns)
    if per_row > 1:
        energy, total = (_in_rows(part, num_rows, per_row) for part in (energy, total))
    count = num_states * (num_channels // num_columns) * per_row
    amount = (energy / count + TINY).log()
    low, high = torch.quantile(amount, torch.tensor((0.02, 0.98), dtype=amount.dtype))
    amounts = _levels((amount - low) / (high - low).clamp(min=TINY))
    signed = total / (energy + TINY).sqrt()  # a standard deviation of 1, for random numbers
    signs = _levels(signed / (2 * SIGN_RANGE) + 0.5)
    cells = (amounts * LEVELS + signs).to(torch.uint8).flatten().tolist()
    return f"{num_rows}x{num_columns}:{b64encode(bytes(cells)).decode()}"


def _sums(ssm: Tensor, num_columns: int) -> tuple[Tensor, Tensor]:
    """The energy and the signed sum of each layer's groups, (l, columns) fp64 in host memory."""
    num_layers, num_states, num_channels = ssm.shape
    signs = _signs(num_states, num_channels, str(ssm.device))
    by_channel = torch.stack((ssm.square().sum(1), (ssm * signs).sum(1)))
    by_group = by_channel.view(2, num_layers, num_columns, -1).sum(-1)
    energy, total = by_group.to("cpu", torch.float64)
    return energy, total


def _in_rows(part: Tensor, num_rows: int, per_row: int) -> Tensor:
    """Layers added up to rows; the last row may have fewer."""
    rows = part.new_zeros(num_rows * per_row, part.shape[1])
    rows[: part.shape[0]] = part
    return rows.reshape(num_rows, per_row, -1).sum(1)


def _levels(shares: Tensor) -> Tensor:
    """Shares of 0…1 as whole levels; what is beyond is the nearest level."""
    return (shares * LEVELS).floor().clamp(0, LEVELS - 1)


def _divisor(number: int, largest: int) -> int:
    """The largest divisor that is not above `largest`."""
    return next(size for size in range(min(number, largest), 0, -1) if number % size == 0)


@lru_cache(maxsize=4)
def _signs(num_states: int, num_channels: int, device: str) -> Tensor:
    """+1 and −1, always the same: from a generator of the CPU, whatever the device."""
    generator = torch.Generator().manual_seed(20_241_010)
    drawn = torch.randint(0, 2, (num_states, num_channels), generator=generator)
    return (2.0 * drawn - 1.0).to(device, torch.float32)
