"""Device memory for the recurrent state of running sequences.

A slot holds everything one sequence has read: 35 MiB at 7B, whatever its length. So no memory is
paged and none grows. This module assigns slots and copies them. It does not know what a session or
a token is.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_mamba_app.model.config import ModelConfig

logger = logging.getLogger(__name__)

# The default budget of the 7B: 0.8 s at start. Further states are pinned on first use, 14 ms each.
MAX_RESERVED_STATES = 64
MAX_KEPT_ON_DEVICE = 8  # saved states; at most one per slot
SCRATCH_SLOT = 0  # padding rows write to it; it is never read


class DeviceCopy:
    """A copy of a saved state on the device, dropped when its memory is needed."""

    def __init__(self, conv: Tensor, ssm: Tensor) -> None:
        self.parts: tuple[Tensor, Tensor] | None = (conv, ssm)


@dataclass(frozen=True, slots=True)
class State:
    """One sequence's state in host memory, shared with no slot.

    conv: (l, k−1, d) in the weights' dtype.  ssm: (l, n, d) fp32. The copy from the device may
    still run: call `wait` before the host reads the numbers.
    """

    conv: Tensor
    ssm: Tensor
    has_arrived: torch.cuda.Event | None = None
    on_device: DeviceCopy | None = None

    @property
    def nbytes(self) -> int:
        return self.conv.nbytes + self.ssm.nbytes

    def wait(self) -> None:
        """Return when the copy is complete."""
        if self.has_arrived is not None:
            self.has_arrived.synchronize()


class NewestCopies:
    """Keeps device copies of the newest saved states; drops the oldest ones to make room."""

    def __init__(self, max_copies: int) -> None:
        self._max_copies = max_copies
        self._copies: deque[weakref.ref[DeviceCopy]] = deque()

    def make_room(self) -> None:
        """Make room for one more copy; call it before allocating that copy."""
        while len(self._copies) >= self._max_copies:
            copy = self._copies.popleft()()
            if copy is not None:
                copy.parts = None

    def keep(self, conv: Tensor, ssm: Tensor) -> DeviceCopy:
        """The copy, held by its State: it is freed with that State or earlier."""
        copy = DeviceCopy(conv, ssm)
        self._copies.append(weakref.ref(copy))
        return copy


def num_kept_on_device(max_running: int) -> int:
    """The largest number of saved states that have a copy on the device."""
    return min(max_running, MAX_KEPT_ON_DEVICE)


class StatePool:
    """The state tensors of all slots, the scratch slot among them."""

    def __init__(
        self, config: ModelConfig, *, max_running: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        num_slots = max_running + 1
        conv_shape, ssm_shape = config.state_shapes.of_slots(num_slots)
        # In host memory a slot that nobody has taken yet costs nothing: 40 MB each at 7B. `take`
        # clears it.
        make = torch.empty if device.type == "cpu" else torch.zeros
        self.conv_states = make(conv_shape, dtype=dtype, device=device)
        self.ssm_states = make(ssm_shape, dtype=torch.float32, device=device)
        self.clear(SCRATCH_SLOT)
        self._free = list(range(num_slots - 1, SCRATCH_SLOT, -1))
        # Copies to the host run on their own stream, in parallel with the next steps.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        # The newest saved states stay on the device too: a next turn then begins 0.8 ms sooner.
        self._newest = NewestCopies(num_kept_on_device(max_running))

    @property
    def num_slots(self) -> int:
        """The number of slots, including the scratch slot."""
        return self.ssm_states.shape[1]

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """Take a free slot; its state is that of an empty sequence."""
        slot = self._free.pop()
        self.clear(slot)
        return slot

    def clear(self, slot: int) -> None:
        """Reset the slot to the state of an empty sequence."""
        self.conv_states[:, slot].zero_()
        self.ssm_states[:, slot].zero_()

    def release(self, slot: int) -> None:
        """Give the slot back; its contents are void."""
        assert slot not in self._free, f"{slot=} freed twice"
        self._free.append(slot)

    def save(self, slot: int) -> State:
        """A copy of the slot's state as it is now, in host memory. Does not wait for the device."""
        self._newest.make_room()
        # Packed on the device first, 25 µs at 7B: the slot is free for the next step at once.
        conv, ssm = self.conv_states[:, slot].clone(), self.ssm_states[:, slot].clone()
        if self._copies is None:
            return State(conv, ssm)
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            host_conv, host_ssm = (_to_pinned(part) for part in (conv, ssm))
            has_arrived = torch.cuda.Event()
            has_arrived.record()
        for part in (conv, ssm):
            part.record_stream(self._copies)  # no reuse before the copy has read it
        return State(host_conv, host_ssm, has_arrived, self._newest.keep(conv, ssm))

    def copy(self, slot: int, to: int) -> None:
        """Overwrite the slot `to` with the state of the other."""
        for states in (self.conv_states, self.ssm_states):
            states[:, to] = states[:, slot]

    def restore(self, slot: int, state: State) -> None:
        """Overwrite the slot with a saved state. Does not wait for the device."""
        kept = None if state.on_device is None else state.on_device.parts
        if kept is not None:
            self.conv_states[:, slot], self.ssm_states[:, slot] = kept
            return
        if state.has_arrived is not None:
            torch.cuda.current_stream().wait_event(state.has_arrived)
        for states, part in ((self.conv_states, state.conv), (self.ssm_states, state.ssm)):
            states[:, slot] = part.to(states.device, non_blocking=True)


def reserve_host(config: ModelConfig, dtype: torch.dtype, max_bytes: int) -> None:
    """Pin host memory for `max_bytes` of states, MAX_RESERVED_STATES at most, so that no step
    waits for it.

    The first pinning of memory takes 14 ms for a state of the 7B.
    """
    shapes = config.state_shapes
    conv = torch.empty(shapes.conv, dtype=dtype, device="meta")
    ssm = torch.empty(shapes.ssm, dtype=torch.float32, device="meta")
    state_bytes, started_s = conv.nbytes + ssm.nbytes, time.perf_counter()
    # Freed at once: torch's allocator keeps the memory pinned for the next block of this size.
    num_states = min(max_bytes // state_bytes, MAX_RESERVED_STATES)
    reserved = [_pinned(part) for part in (conv, ssm) for _ in range(num_states)]
    logger.info(
        "reserved host memory for %d states of %.1f MB in %.1f s",
        num_states,
        state_bytes / 1e6,
        time.perf_counter() - started_s,
    )
    del reserved


def _to_pinned(part: Tensor) -> Tensor:
    return _pinned(part).copy_(part, non_blocking=True)


def _pinned(like: Tensor) -> Tensor:
    """Pinned host memory of the same shape and dtype, which the device copies without the CPU."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
