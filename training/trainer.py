"""One model, its optimiser and its steps. Where batches come from and when to stop is not its task.

The gradients of all parameters lie in one buffer, so several GPUs need one sum for a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from falcon_mamba_app.model.config import ModelConfig
from training.mixture import Batch
from training.model import TrainingModel, reply_loss
from training.muon import Muon
from training.ranks import Ranks

PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
MAX_GRADIENT_NORM = 1.0
PRODUCTS = ("in_proj.weight", "x_proj.weight", "out_proj.weight")  # what Muon is for


class Trainer:
    def __init__(
        self,
        config: ModelConfig,
        ranks: Ranks,
        *,
        seed: int,
        is_compiled: bool,
        optimizer: str = "muon",
    ) -> None:
        torch.manual_seed(seed)  # the same weights on every rank
        on_gpu = ranks.device.type == "cuda"
        dtype = torch.bfloat16 if on_gpu else torch.float32
        self.ranks = ranks
        self.model = TrainingModel(config, compute_dtype=dtype, is_compiled=is_compiled)
        self.model.to(ranks.device)
        self._parameters = list(self.model.parameters())
        self._gradients = _shared_gradients(self._parameters)
        self._optimizers = _optimizers(self.model, optimizer, is_fused=on_gpu)

    def step(self, batch: Batch, learning_rate: float) -> Tensor:
        """One update; returns the mean loss in nats for a token of weight 1, as a tensor."""
        self._gradients.zero_()
        loss, weight = reply_loss(self.model(batch.inputs), batch.targets, batch.weights)
        loss.backward()
        total = self.ranks.sum(torch.stack([loss.detach(), weight]))
        self.ranks.sum(self._gradients)
        self._gradients.div_(total[1])
        self._clip()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        return total[0] / total[1]

    def _clip(self) -> None:
        """To MAX_GRADIENT_NORM; to nothing where a value is not finite, so one step cannot end
        the run.
        """
        norm = torch.linalg.vector_norm(self._gradients)
        scale = torch.clamp(MAX_GRADIENT_NORM / (norm + 1e-6), max=1.0)
        self._gradients.nan_to_num_(0.0, 0.0, 0.0)
        self._gradients.mul_(torch.where(torch.isfinite(norm), scale, 0.0))

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Mean over the batches' weighted tokens, in nats.

        With gradients, which nobody takes: without, everything would be compiled a second time.
        """
        sums = [
            torch.stack(reply_loss(self.model(batch.inputs), batch.targets, batch.weights)).detach()
            for batch in (each.to(self.ranks.device) for each in batches)
        ]
        loss, weight = torch.stack(sums).sum(0).tolist()
        return float(loss / weight)

    def start(self, weights: dict[str, Tensor]) -> None:
        """Begin with an exported model's weights, and an optimiser that knows nothing yet."""
        self.model.load_state_dict(weights)

    def state(self) -> dict[str, Any]:
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {"model": self.model.state_dict(), "optimizers": optimizers}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def _shared_gradients(parameters: list[torch.nn.Parameter]) -> Tensor:
    """One fp32 buffer that every parameter's gradient is a view of."""
    buffer = torch.zeros(sum(each.numel() for each in parameters), device=parameters[0].device)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.grad = buffer[start:end].view_as(parameter)
        start = end
    return buffer


def _optimizers(model: TrainingModel, name: str, *, is_fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the layers' products. Matrices decay; vectors and what the
    recurrence is made of do not.
    """
    named = list(model.named_parameters())
    products = [p for n, p in named if n.endswith(PRODUCTS) and name == "muon"]
    ids = {id(p) for p in products}
    rest = [(n, p) for n, p in named if id(p) not in ids]
    decays = [p for n, p in rest if p.dim() == 2 and not n.endswith("A_log")]
    kept = [p for n, p in rest if p.dim() != 2 or n.endswith("A_log")]
    groups = [
        {"params": decays, "weight_decay": WEIGHT_DECAY},
        {"params": kept, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, fused=is_fused
    )
    if not products:
        return [adamw]
    return [adamw, Muon(products, lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)]
