"""Device memory for the recurrent state of running sequences.

A slot holds everything one sequence has read, 35 MiB at 7B whatever its length, so there is nothing
to page and nothing to grow. This module hands out slots and copies them; it does not know what a
session or a token is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_mamba_app.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class State:
    """One sequence's state in host memory, owned by nobody else.

    conv: (l, k−1, d) in the weights' dtype.  ssm: (l, n, d) fp32.
    """

    conv: Tensor
    ssm: Tensor

    @property
    def nbytes(self) -> int:
        return self.conv.nbytes + self.ssm.nbytes


class StatePool:
    """The state tensors of all slots. Slot 0 is scratch: padding rows write it, nobody reads it."""

    def __init__(
        self, config: ModelConfig, *, max_running: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        num_slots = max_running + 1
        layers, d = config.num_layers, config.d_inner
        self.conv_states = torch.zeros(
            layers, num_slots, config.d_conv - 1, d, dtype=dtype, device=device
        )
        self.ssm_states = torch.zeros(
            layers, num_slots, config.d_state, d, dtype=torch.float32, device=device
        )
        self._free = list(range(num_slots - 1, 0, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A slot whose state is that of an empty sequence."""
        slot = self._free.pop()
        self.conv_states[:, slot].zero_()
        self.ssm_states[:, slot].zero_()
        return slot

    def release(self, slot: int) -> None:
        """Give the slot back; its contents are void."""
        assert slot not in self._free, f"{slot=} freed twice"
        self._free.append(slot)

    def save(self, slot: int) -> State:
        """A copy of the slot's state in host memory."""
        return State(
            self.conv_states[:, slot].to("cpu", copy=True),
            self.ssm_states[:, slot].to("cpu", copy=True),
        )

    def restore(self, slot: int, state: State) -> None:
        """Overwrite the slot with a saved state."""
        self.conv_states[:, slot].copy_(state.conv)
        self.ssm_states[:, slot].copy_(state.ssm)
