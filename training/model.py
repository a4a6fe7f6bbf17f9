"""The model as it is trained: the inference path's arithmetic over whole rows, with gradients.

Parameters are fp32 and named as in the checkpoint; products are taken in `compute_dtype`. The rows
hold several documents each, and none sees the one before it: the convolution's window and the
state begin anew after every end-of-text token, as they do when the app starts a conversation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from falcon_mamba_app.model.config import ModelConfig
from training.scan import selective_scan

END_OF_TEXT = 0  # closes every document

NANO = ModelConfig(
    family="falcon_mamba",
    num_layers=12,
    hidden_size=512,
    d_inner=1024,
    d_state=16,
    d_conv=4,
    dt_rank=32,
    vocab_size=8192,
)
TINY = ModelConfig(
    family="falcon_mamba",
    num_layers=2,
    hidden_size=64,
    d_inner=128,
    d_state=8,
    d_conv=4,
    dt_rank=8,
    vocab_size=8192,
)
SLOWEST = 1 / 16
PRESETS = {"nano": NANO, "tiny": TINY}


def add_rms_norm(
    hidden: Tensor, addend: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(…, h) fp32 + the last layer's output, and the norm of the sum in the output's dtype."""
    hidden = hidden + addend.float()
    scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + eps)
    return hidden, (hidden * scale * weight).to(addend.dtype)


def split_rms_norm(x: Tensor, sizes: list[int], eps: float) -> list[Tensor]:
    """dt, B and C of (…, r + 2n), each normalised without weights."""
    parts = x.float().split(sizes, dim=-1)
    scales = [torch.rsqrt(part.square().mean(-1, keepdim=True) + eps) for part in parts]
    return [(part * scale).to(x.dtype) for part, scale in zip(parts, scales, strict=True)]


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor, age: Tensor) -> Tensor:
    """The causal depthwise convolution of (b, t, d), which does not look before a document.

    weight: (d, k).  age: (b, t), how many tokens of the same document precede, at most k − 1.
    """
    width, num_tokens = weight.shape[1], x.shape[1]
    padded = F.pad(x.float(), (0, 0, width - 1, 0))
    y = x.float() * weight[:, width - 1] + bias
    for back in range(1, width):
        start = width - 1 - back
        seen = padded[:, start : start + num_tokens] * weight[:, start]
        y = y + torch.where((age >= back).unsqueeze(-1), seen, 0.0)
    return F.silu(y).to(x.dtype)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, age: Tensor) -> Tensor:
    """`conv_silu`, by kernels on a GPU."""
    if x.is_cuda:
        from training.triton_conv import TritonConv

        y: Tensor = TritonConv.apply(x, weight, bias, age)  # type: ignore[no-untyped-call]
        return y
    return conv_silu(x, weight, bias, age)


def log_decay_rates(num_states: int) -> Tensor:
    """(n,): from SLOWEST to n, evenly in the logarithm. The slow ones carry what was told over a
    thousand tokens from the first step on; 1, 2, … n, as in Mamba, would have to learn it.
    """
    return torch.linspace(math.log(SLOWEST), math.log(num_states), num_states)


class Mixer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        h, d, n, r = config.hidden_size, config.d_inner, config.d_state, config.dt_rank
        self.in_proj = nn.Linear(h, 2 * d, bias=False)
        self.conv1d = nn.Conv1d(d, d, config.d_conv, groups=d)
        self.x_proj = nn.Linear(d, r + 2 * n, bias=False)
        self.dt_proj = nn.Linear(r, d)
        self.A_log = nn.Parameter(log_decay_rates(n).repeat(d, 1))
        self.D = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, h, bias=False)
        assert config.mixer_norm_eps is not None, "a Falcon Mamba normalises dt, B and C"
        self.sizes, self.eps = [r, n, n], config.mixer_norm_eps
        self._initialise(config)

    def _initialise(self, config: ModelConfig) -> None:
        """Time steps from 0.001 to 0.1, spread evenly in the logarithm (Mamba, §3.6)."""
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.x_proj.weight, std=config.d_inner**-0.5)
        nn.init.normal_(self.out_proj.weight, std=0.02 / math.sqrt(2 * config.num_layers))
        nn.init.uniform_(
            self.dt_proj.weight, -0.5 * config.dt_rank**-0.5, 0.5 * config.dt_rank**-0.5
        )
        steps = torch.exp(torch.empty(config.d_inner).uniform_(math.log(1e-3), math.log(1e-1)))
        with torch.no_grad():
            self.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, x: Tensor, age: Tensor, keep: Tensor, fused: Fused) -> Tensor:
        """(b, t, h) → (b, t, h)."""
        dtype = x.dtype
        x, z = F.linear(x, self.in_proj.weight.to(dtype)).chunk(2, dim=-1)
        assert self.conv1d.bias is not None
        x = causal_conv(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, age)
        projected = F.linear(x, self.x_proj.weight.to(dtype))
        dt, B, C = fused.split_rms_norm(projected, self.sizes, self.eps)
        dt = F.linear(dt, self.dt_proj.weight.to(dtype))
        A = -torch.exp(self.A_log)
        y = selective_scan(x, dt, A, B, C, self.D, z, self.dt_proj.bias, keep)
        return F.linear(y, self.out_proj.weight.to(dtype))


class Fused:
    """The element-wise passes, compiled into one kernel each where that is asked for."""

    def __init__(self, *, is_compiled: bool) -> None:
        self.add_rms_norm, self.split_rms_norm = add_rms_norm, split_rms_norm
        if is_compiled:
            self.add_rms_norm = torch.compile(add_rms_norm, dynamic=False)
            self.split_rms_norm = torch.compile(split_rms_norm, dynamic=False)


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm, self.mixer = Norm(config.hidden_size), Mixer(config)


class Backbone(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_f = Norm(config.hidden_size)


class TrainingModel(nn.Module):
    """`state_dict` has the names of the transformers checkpoint; the head is the embeddings."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        compute_dtype: torch.dtype = torch.float32,
        is_compiled: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        self.backbone = Backbone(config)
        self.fused = Fused(is_compiled=is_compiled)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t) int64 → logits (b, t, v) in the compute dtype."""
        age = document_age(tokens, self.config.d_conv - 1)
        keep = (age > 0).to(torch.uint8)
        hidden = F.embedding(tokens, self.backbone.embeddings.weight)
        addend = torch.zeros_like(hidden, dtype=self.compute_dtype)
        layers: Iterable[Any] = self.backbone.layers
        for block in layers:
            hidden, normed = self._norm(hidden, addend, block.norm)
            addend = block.mixer(normed, age, keep, self.fused)
        normed = self._norm(hidden, addend, self.backbone.norm_f)[1]
        return F.linear(normed, self.backbone.embeddings.weight.to(self.compute_dtype))

    def _norm(self, hidden: Tensor, addend: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        return self.fused.add_rms_norm(hidden, addend, norm.weight, self.config.norm_eps)


def document_age(tokens: Tensor, limit: int) -> Tensor:
    """(b, t) → how many tokens before each belong to its document, counted up to `limit`."""
    starts = torch.ones_like(tokens, dtype=torch.bool)
    starts[:, 1:] = tokens[:, :-1] == END_OF_TEXT
    age = torch.zeros_like(tokens, dtype=torch.uint8)
    for back in range(1, limit + 1):
        older = F.pad(age[:, :-1] + 1, (1, 0)).clamp(max=back)
        age = torch.where(starts, 0, older)
    return age


def reply_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of weighted cross-entropies in nats, and the sum of the weights.

    logits: (b, t, v).  targets: (b, t).  weights: (b, t) fp32.
    """
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    weights = weights.flatten()
    return torch.dot(losses, weights), weights.sum()
