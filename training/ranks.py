"""One process for each GPU: who is who, and the sums over all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `count`, and the device it computes on."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> Ranks:
        """As torchrun's environment says; alone without it."""
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        on_gpu = device == "cuda"
        place = torch.device("cpu")
        if on_gpu:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(place)
        if count > 1:
            dist.init_process_group("nccl" if on_gpu else "gloo")
        return cls(rank, count, place)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, value: float) -> float:
        """The first process's value, for all: clocks differ by milliseconds."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def leave(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()
