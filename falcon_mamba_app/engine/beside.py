"""Reads a few tokens after a copy of a saved state, beside the engine's sequences.

It has slots of its own, so no sequence and no saved state changes; the call is one short pass
between two steps. Only the engine's thread may call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.falcon_mamba import FalconMamba, Mixer

SLOT = 1  # 0 is scratch


@dataclass(frozen=True, slots=True)
class Beside:
    """In host memory: logprobs (t, v) of the token after each one, ssm (l, n, d) after the last,
    and mean_steps (l, d), the mean of Δ over the tokens; all fp32.
    """

    logprobs: Tensor
    ssm: Tensor
    mean_steps: Tensor


@torch.inference_mode()
def read_beside(model: FalconMamba, state: State | None, token_ids: Sequence[int]) -> Beside:
    """Read the tokens after the state; None is the empty one."""
    conv_shape, ssm_shape = model.config.state_shapes.of_slots(SLOT + 1)
    conv = torch.zeros(conv_shape, dtype=model.dtype, device=model.device)
    ssm = torch.zeros(ssm_shape, dtype=torch.float32, device=model.device)
    if state is not None:
        state.wait()
        conv[:, SLOT], ssm[:, SLOT] = state.conv.to(model.device), state.ssm.to(model.device)
    steps: list[Tensor] = []
    ids, slots, starts = (
        torch.tensor(values, device=model.device)
        for values in (list(token_ids), [SLOT], [0, len(token_ids)])
    )
    hidden = model(Batch(ids, slots, starts, steps=steps), conv, ssm)
    logprobs = model.prompt_logits(hidden).log_softmax(-1)
    return Beside(*(part.to("cpu") for part in (logprobs, ssm[:, SLOT], torch.stack(steps))))


@torch.inference_mode()
def decay_rates(model: FalconMamba, mean_steps: Tensor) -> Tensor:
    """−Δ·A of each number of the state, (l, n, d) in host memory, for steps Δ (l, d)."""
    mixers = [module for module in model.modules() if isinstance(module, Mixer)]
    return torch.stack(
        [-mixer.scan.A.to("cpu") * step for mixer, step in zip(mixers, mean_steps, strict=True)]
    )
