"""States of this model as files and back: `engine.states.file` with what it asks for filled in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from falcon_mamba_app.engine.states import file
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.service.local.startup import Startup


@dataclass(frozen=True, slots=True)
class StateCodec:
    """`model` names the weights in their precision: states of another one are near, not equal."""

    config: ModelConfig
    dtype: torch.dtype
    device: torch.device
    fingerprint: str
    model: str

    @classmethod
    def of(cls, startup: Startup) -> StateCodec:
        """For a model that has been loaded."""
        placement, info = startup.placement, startup.model_info
        model = f"{startup.fingerprint} {info.dtype} {info.quantization}"
        return cls(
            placement.checkpoint.config,
            placement.dtype,
            placement.device,
            startup.fingerprint,
            model,
        )

    def to_bytes(self, snapshot: Snapshot, replies: list[Any]) -> bytes:
        """The file; waits until the state has arrived in host memory."""
        snapshot.state.wait()
        return file.to_bytes(snapshot, model_fingerprint=self.fingerprint, replies=replies)

    def from_bytes(self, data: bytes) -> tuple[Snapshot, Any]:
        """The snapshot and the replies, which are not checked. Raises InvalidRequest."""
        return file.from_bytes(
            data,
            config=self.config,
            conv_dtype=self.dtype,
            model_fingerprint=self.fingerprint,
        )

    def staged(self, snapshot: Snapshot) -> Snapshot:
        """The same where the device copies it without the CPU; it takes 14 ms at 7B, off the
        engine's thread.
        """
        if self.device.type != "cuda":
            return snapshot
        state = snapshot.state
        pinned = replace(state, conv=state.conv.pin_memory(), ssm=state.ssm.pin_memory())
        return replace(snapshot, state=pinned)
