"""Mamba-1 as modules named by the checkpoint's keys, for the `falcon_mamba` and `mamba` families.

A forward pass reads packed tokens of several sequences and advances their states in place. It never
creates or deletes a state. This module does not know sequences or sampling.

The families differ in one point: falcon_mamba normalises dt, B and C, without weights, before
dt_proj (arXiv 2410.05355, §2.2).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from falcon_mamba_app.model.batch import Batch, LayerInputs
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.linear import EmbeddingPacked, Linear, Linear4bit, LinearPacked
from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights, total

NUM_NAMED_ROWS = 16


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class RMSNorm(nn.Module):
    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self._eps, self._ops = config.norm_eps, ops

    def forward(self, hidden: Tensor, addends: Tensor | None) -> tuple[Tensor, Tensor]:
        """hidden (t, h) + the sum of addends (a, t, h), and its norm in the weight's dtype."""
        weight, eps = self.weight, self._eps
        if addends is None:
            return hidden, self._ops.rms_norm(hidden, weight, eps, weight.dtype)
        return self._ops.add_rms_norm(hidden, addends, weight, eps, weight.dtype)


class Mixer(nn.Module):
    """The selective state-space block: gate, short convolution, scan, projection."""

    # Replaced if they are quantised.
    in_proj: Linear | LinearPacked | Linear4bit
    x_proj: Linear | LinearPacked | Linear4bit
    dt_proj: Linear | LinearPacked | Linear4bit
    out_proj: Linear | LinearPacked | Linear4bit
    # Derived by `prepare`.
    conv: ConvWeights
    scan: ScanWeights

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        d, n, k, r = config.d_inner, config.d_state, config.d_conv, config.dt_rank
        self.in_proj = Linear(config.hidden_size, 2 * d, ops, bias=config.use_bias)
        self.conv1d = nn.Conv1d(d, d, k, groups=d, bias=config.use_conv_bias)
        self.x_proj = Linear(d, r + 2 * n, ops)
        self.dt_proj = Linear(r, d, ops, bias=True)
        self.A_log = nn.Parameter(torch.empty(d, n))
        self.D = nn.Parameter(torch.empty(d))
        self.out_proj = Linear(d, config.hidden_size, ops, bias=config.use_bias)
        self._sizes, self._eps, self._ops = [r, n, n], config.mixer_norm_eps, ops

    def prepare(self) -> None:
        """Derive the constants of the recurrence from the loaded weights once, in fp32."""
        dt_bias = self.dt_proj.bias
        assert dt_bias is not None, "dt_proj has a bias in every Mamba"
        A = -torch.exp(self.A_log.float()).T.contiguous()
        self.scan = ScanWeights(A, self.D.float(), dt_bias.float())
        weight = self.conv1d.weight.squeeze(1).T.contiguous()  # (k, d)
        self.conv = ConvWeights(weight, self.conv1d.bias)

    def forward(self, x: Tensor, conv_states: Tensor, ssm_states: Tensor, batch: Batch) -> Tensor:
        """(t, h) → (a, t, h), the output as addends. Advances conv_states (s, k−1, d) and
        ssm_states (s, n, d).
        """
        if batch.is_step:
            return self._step(x, conv_states, ssm_states, batch.slots)
        if batch.draft is not None:
            return self._try(x, conv_states, ssm_states, batch, batch.draft)
        return self._read(x, conv_states, ssm_states, batch)

    def _step(self, x: Tensor, conv_states: Tensor, ssm_states: Tensor, slots: Tensor) -> Tensor:
        """`forward` of rows alone, which has its own kernels."""
        x, z = self._convolved_step(x, conv_states, slots)
        y = self._scanned_step(x, z, ssm_states, slots)
        return self.out_proj.step_addends(y)

    def _convolved_step(
        self, x: Tensor, conv_states: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(b, h) → x after the convolution and z, both (b, d)."""
        in_proj = self.in_proj
        return self._ops.projected_conv_step(
            x, in_proj.weight, in_proj.bias, self.conv, conv_states=conv_states, slots=slots
        )

    def _scanned_step(self, x: Tensor, z: Tensor, ssm_states: Tensor, slots: Tensor) -> Tensor:
        """(b, d): everything after the convolution, up to the gate."""
        # dt_proj's bias is added in the scan, in fp32.
        return self._ops.projected_scan_step(
            x,
            self.scan,
            addends=self.x_proj.step_addends(x),
            sizes=self._sizes,
            eps=self._eps,
            dt_weight=self.dt_proj.weight,
            z=z,
            ssm_states=ssm_states,
            slots=slots,
        )

    def _read(self, x: Tensor, conv_states: Tensor, ssm_states: Tensor, batch: Batch) -> Tensor:
        """`forward` of prompts, with or without rows before them."""
        x, z = self.in_proj.prompt(x).chunk(2, dim=-1)
        x = self._convolved(x, conv_states, batch)
        if self._eps is None:
            dt, B, C = self.x_proj.prompt(x).split(self._sizes, dim=-1)
        else:
            addends = self.x_proj.prompt_addends(x)
            dt, B, C = self._ops.split_rms_norm(addends, self._sizes, self._eps, x.dtype)
        dt = self.dt_proj.prompt_without_bias(dt)
        if batch.steps is not None:
            batch.steps.append(nn.functional.softplus(dt.float() + self.scan.dt_bias).mean(0))
        y = self._scanned(x, dt, B, C, z, ssm_states, batch)
        return self.out_proj.prompt_addends(y)

    def _try(
        self,
        x: Tensor,
        conv_states: Tensor,
        ssm_states: Tensor,
        batch: Batch,
        inputs: list[LayerInputs],
    ) -> Tensor:
        """`forward` of a draft: `_read` with the products of a step."""
        projected, z = self.in_proj.step(x).chunk(2, dim=-1)
        x = self._convolved(projected, conv_states, batch)
        if self._eps is None:
            dt, B, C = self.x_proj.step(x).split(self._sizes, dim=-1)
        else:
            addends = self.x_proj.step_addends(x)
            dt, B, C = self._ops.split_rms_norm(addends, self._sizes, self._eps, x.dtype)
        dt = self.dt_proj.step_without_bias(dt)
        inputs.append(LayerInputs(projected, x, dt, B, C, z))
        y = self._scanned(x, dt, B, C, z, ssm_states, batch)
        return self.out_proj.step_addends(y)

    def advance(
        self, inputs: LayerInputs, conv_states: Tensor, ssm_states: Tensor, batch: Batch
    ) -> None:
        """Advance the states over what a draft has read; nothing is multiplied again."""
        projected, x, dt, B, C, z = inputs
        self._convolved(projected, conv_states, batch)
        self._scanned(x, dt, B, C, z, ssm_states, batch)

    def _convolved(self, x: Tensor, conv_states: Tensor, batch: Batch) -> Tensor:
        """The convolution, (t, d) → (t, d): the rows by a step, the prompts by a prefill."""
        ops, conv = self._ops, self.conv
        return _joined(
            [
                ops.conv_step(x[part], conv, conv_states=conv_states, slots=slots)
                if starts is None
                else ops.conv_prefill(
                    x[part], conv, conv_states=conv_states, slots=slots, query_starts=starts
                )
                for part, slots, starts in batch.parts()
            ]
        )

    def _scanned(
        self,
        x: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_states: Tensor,
        batch: Batch,
    ) -> Tensor:
        """The scan: the rows by a step, the prompts by a prefill."""
        ops, scanned = self._ops, []
        for part, slots, starts in batch.parts():
            scan = (
                ops.scan_step if starts is None else partial(ops.scan_prefill, query_starts=starts)
            )
            scanned.append(
                scan(
                    x[part],
                    self.scan,
                    dt=dt[part],
                    B=B[part],
                    C=C[part],
                    z=z[part],
                    ssm_states=ssm_states,
                    slots=slots,
                )
            )
        return _joined(scanned)


class Block(nn.Module):
    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.norm = RMSNorm(config, ops)
        self.mixer = Mixer(config, ops)

    def forward(
        self,
        hidden: Tensor,
        addends: Tensor | None,
        conv_states: Tensor,
        ssm_states: Tensor,
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """Takes and returns the residual stream (t, h) and the addends still to be added to it;
        shapes as in Mixer. The next norm adds them, in one pass over memory.
        """
        hidden, normed = self.norm(hidden, addends)
        return hidden, self.mixer(normed, conv_states, ssm_states, batch)


class Backbone(nn.Module):
    embeddings: nn.Embedding | EmbeddingPacked  # replaced if it is quantised

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        # Over an empty table: to draw one on the meta device imports torch's compiler for 1.6 s.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embeddings = nn.Embedding.from_pretrained(table)
        self.layers = nn.ModuleList(Block(config, ops) for _ in range(config.num_layers))
        self.norm_f = RMSNorm(config, ops)


class FalconMamba(nn.Module):
    """The language model. `load_state_dict` takes a transformers checkpoint's keys as they are."""

    lm_head: Linear | LinearPacked  # replaced if it is quantised
    # The first rows of the table and the last of the head, as the checkpoint has them: they name
    # its weights, in whatever form.
    named_rows: tuple[Tensor, Tensor]

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        self.backbone = Backbone(config, ops)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, ops)

    def prepare(self) -> None:
        """Call this once after the weights are in place."""
        self.requires_grad_(False).eval()
        for module in self.modules():
            if isinstance(module, Mixer):
                module.prepare()
        table, head = self.backbone.embeddings.weight, self.lm_head.weight
        if isinstance(table, Tensor) and isinstance(head, Tensor):
            self.named_rows = table[:NUM_NAMED_ROWS], head[-NUM_NAMED_ROWS:]

    @property
    def device(self) -> torch.device:
        return self.backbone.norm_f.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.norm_f.weight.dtype

    def forward(self, batch: Batch, conv_states: Tensor, ssm_states: Tensor) -> Tensor:
        """Read the batch's tokens, advancing the states of its slots.

        Args:
            conv_states: (l, s, k−1, d) in the weights' dtype.
            ssm_states: (l, s, n, d) fp32. With the states of one layer, only the first layer runs.

        Returns:
            (t, h) after the final norm, the input of `step_logits` and `prompt_logits`.
        """
        hidden = self.backbone.embeddings(batch.token_ids)
        if self.config.residual_in_fp32:
            hidden = hidden.float()
        addends = None
        layers, num_states = self.backbone.layers, len(conv_states)
        assert num_states in (1, len(layers)), f"{num_states} states for {len(layers)} layers"
        for layer, conv, ssm in zip(layers[:num_states], conv_states, ssm_states, strict=True):
            hidden, addends = layer(hidden, addends, conv, ssm, batch)
        normed: Tensor = self.backbone.norm_f(hidden, addends)[1]
        return normed

    def advance(
        self, inputs: list[LayerInputs], conv_states: Tensor, ssm_states: Tensor, batch: Batch
    ) -> None:
        """Advance the states of the batch's slot over the inputs that a draft has left."""
        mixers = [module for module in self.modules() if isinstance(module, Mixer)]
        for mixer, read, conv, ssm in zip(mixers, inputs, conv_states, ssm_states, strict=True):
            mixer.advance(read, conv, ssm, batch)

    def step_logits(self, normed: Tensor) -> Tensor:
        """The rows of a decode step (b, h), from `forward` → (b, v) fp32."""
        return total(self.lm_head.step_addends(normed)).float()

    def prompt_logits(self, normed: Tensor) -> Tensor:
        """Tokens of prompts (t, h), from `forward` → (t, v) fp32."""
        return total(self.lm_head.prompt_addends(normed)).float()
