"""The contract of every operation, and each one in plain torch.

Letters as in `model/config.py`: b rows, t packed tokens, q sequences, d channels, n states per
channel, k convolution width, s slots, v vocabulary; here also i inputs and o outputs of a matrix.

The states of all sequences lie in tensors of s rows. An operation reads and writes in place only
the rows named by `slots`. Channels are innermost everywhere, so a row of them is contiguous for a
CPU's vectors and a GPU's warps. Arithmetic is fp32, whatever the inputs' dtype. A decode step and
the reading of prompts have separate operations, which compute the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops.reference import (
    allowed_tokens,
    matrix,
    next_token,
    recurrence,
    sampling,
    weight_4bit,
)
from falcon_mamba_app.ops.reference.matrix import Matrix, Packed, total
from falcon_mamba_app.ops.reference.recurrence import ConvWeights, ScanWeights
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit


class Ops:
    """Plain torch. The classes of a device override what their kernels do faster."""

    name = "reference"  # for the log, the panel and /v1/models
    # Whether a step, and the reading of prompts, never wait for the device. A CUDA graph can only
    # capture operations that never wait.
    can_capture_steps = False
    can_capture_prompts = False
    num_verifiable_tokens = 0  # that one pass reads with exactly the numbers of as many steps

    # ---- Matrix products ----

    def matmul_prompt(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """x (t, i) · weight (o, i)ᵀ + bias (o,), for the tokens of prompts; (t, o), x's dtype."""
        dense = weight if isinstance(weight, Tensor) else self.dequantize(weight, x.dtype)
        return F.linear(x, dense, bias)

    def matmul_step(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """`matmul_prompt` for the rows of a decode step."""
        return self.matmul_prompt(x, weight, bias)

    def matmul_prompt_addends(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """(a, t, o), x's dtype or fp32, whose sum over a is `matmul_prompt`.

        The norms below add the addends while they read them. So a product that is computed in parts
        needs no extra pass for their sum.
        """
        return self.matmul_prompt(x, weight, bias).unsqueeze(0)

    def matmul_step_addends(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """`matmul_prompt_addends` for the rows of a decode step."""
        return self.matmul_step(x, weight, bias).unsqueeze(0)

    def dequantize(self, weight: Weight4bit | Packed, dtype: torch.dtype) -> Tensor:
        """The matrix (o, i) in `dtype`, rounded once from fp32."""
        if isinstance(weight, Weight4bit):
            return weight_4bit.dequantize(weight, dtype)
        return matrix.dequantize(weight, dtype)

    def rows_of(self, weight: Packed, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows (t,) of the matrix, (t, i) in `dtype`: the embeddings of tokens."""
        return matrix.rows_of(weight, rows, dtype)

    def matmul_4bit_prompt(self, x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
        """`matmul_prompt` of a quantised matrix in its compute dtype; the result has x's dtype."""
        dtype, bias = weight.compute_dtype, None if bias is None else bias.to(weight.compute_dtype)
        return self.matmul_prompt(x.to(dtype), self.dequantize(weight, dtype), bias).to(x.dtype)

    def matmul_4bit_step(self, x: Tensor, weight: Weight4bit, bias: Tensor | None) -> Tensor:
        """`matmul_step` of a quantised matrix in its compute dtype; the result has x's dtype."""
        dtype, bias = weight.compute_dtype, None if bias is None else bias.to(weight.compute_dtype)
        return self.matmul_step(x.to(dtype), self.dequantize(weight, dtype), bias).to(x.dtype)

    def matmul_4bit_prompt_addends(
        self, x: Tensor, weight: Weight4bit, bias: Tensor | None
    ) -> Tensor:
        """`matmul_prompt_addends` of a quantised matrix."""
        return self.matmul_4bit_prompt(x, weight, bias).unsqueeze(0)

    def matmul_4bit_step_addends(
        self, x: Tensor, weight: Weight4bit, bias: Tensor | None
    ) -> Tensor:
        """`matmul_step_addends` of a quantised matrix."""
        return self.matmul_4bit_step(x, weight, bias).unsqueeze(0)

    def _multiply_step(self, x: Tensor, weight: Matrix | Weight4bit, bias: Tensor | None) -> Tensor:
        if isinstance(weight, Weight4bit):
            return self.matmul_4bit_step(x, weight, bias)
        return self.matmul_step(x, weight, bias)

    # ---- Norms ----

    def rms_norm(
        self, x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype
    ) -> Tensor:
        """x (t, m) / sqrt(mean(x²) + eps), times `weight` (m,) if there is one, in `out_dtype`."""
        return recurrence.rms_norm(x, weight, eps, out_dtype)

    def add_rms_norm(
        self, hidden: Tensor, addends: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """hidden (t, m) + the sum of addends (a, t, m) in hidden's dtype, and its rms_norm."""
        hidden = (hidden + total(addends)).to(hidden.dtype)
        return hidden, self.rms_norm(hidden, weight, eps, out_dtype)

    def split_rms_norm(
        self, addends: Tensor, sizes: list[int], eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """The sum of addends (a, t, m) as groups of columns, each normalised by itself."""
        groups = total(addends).split(sizes, dim=-1)
        return tuple(self.rms_norm(group, None, eps, out_dtype) for group in groups)

    # ---- Convolution ----

    def conv_prefill(
        self,
        x: Tensor,
        weights: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        """Causal depthwise convolution and silu over packed sequences, continuing their windows.

        y[i] = silu(bias + Σ_j weight[j]·x[i − (k−1) + j]), where the k−1 inputs before a sequence's
        first token of this call are its conv_state.

        Args:
            x: (t, d).
            conv_states: (s, k−1, d); rows in `slots` end as the last k−1 inputs of their sequence.
            slots: (q,) int64, distinct except for 0, the scratch slot.
            query_starts: (q+1,) int64; sequence i owns tokens query_starts[i] to query_starts[i+1].

        Returns:
            (t, d) in x's dtype; undefined for tokens that no sequence owns.
        """
        return recurrence.conv_prefill(
            x, weights, conv_states=conv_states, slots=slots, query_starts=query_starts
        )

    def conv_step(
        self, x: Tensor, weights: ConvWeights, *, conv_states: Tensor, slots: Tensor
    ) -> Tensor:
        """`conv_prefill` for one token of each row.

        Args:
            x: (b, d).
            slots: (b,) int64, distinct except for 0, the scratch slot that padding rows share.
        """
        return recurrence.conv_step(x, weights, conv_states=conv_states, slots=slots)

    def projected_conv_step(
        self,
        x: Tensor,
        weight: Matrix | Weight4bit,
        bias: Tensor | None,
        conv: ConvWeights,
        *,
        conv_states: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """conv_step of the first half of x·weightᵀ + bias, and the second half unchanged."""
        x, z = self._multiply_step(x, weight, bias).chunk(2, dim=-1)
        return self.conv_step(x, conv, conv_states=conv_states, slots=slots), z

    # ---- Scan ----

    def scan_prefill(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
        query_starts: Tensor,
    ) -> Tensor:
        """The selective scan over packed sequences, continuing each one's state.

        Δ = softplus(dt + dt_bias);  h ← exp(Δ·A)·h + Δ·B·x;  y = (C·h + D·x)·silu(z)
        (Mamba, arXiv 2312.00752, algorithm 2.)

        Args:
            x, dt, z: (t, d), x after the convolution, dt before softplus; rows may be strided.
            B, C: (t, n), already normalised.
            ssm_states: (s, n, d) fp32; rows in `slots` are advanced over their tokens.
            slots, query_starts: as in `conv_prefill`.

        Returns:
            (t, d) in x's dtype; undefined for tokens that no sequence owns.
        """
        return recurrence.scan_prefill(
            x,
            weights,
            dt=dt,
            B=B,
            C=C,
            z=z,
            ssm_states=ssm_states,
            slots=slots,
            query_starts=query_starts,
        )

    def scan_step(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """`scan_prefill` for one token of each row; slots (b,) as in `conv_step`."""
        return recurrence.scan_step(
            x, weights, dt=dt, B=B, C=C, z=z, ssm_states=ssm_states, slots=slots
        )

    def projected_scan_step(
        self,
        x: Tensor,
        weights: ScanWeights,
        *,
        addends: Tensor,
        sizes: list[int],
        eps: float | None,
        dt_weight: Matrix | Weight4bit,
        z: Tensor,
        ssm_states: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """scan_step of x_proj's output, addends (a, b, r + 2·n). It holds dt, B and C with these
        `sizes`; each is normalised unless eps is None, and dt is multiplied by dt_weight (d, r).
        """
        dt, B, C = total(addends).to(x.dtype).split(sizes, dim=-1)
        if eps is not None:
            dt, B, C = self.split_rms_norm(addends, sizes, eps, x.dtype)
        dt = self._multiply_step(dt, dt_weight, None)
        return self.scan_step(x, weights, dt=dt, B=B, C=C, z=z, ssm_states=ssm_states, slots=slots)

    # ---- The next token ----

    def next_inputs(self, inputs: Tensor, last_tokens: Tensor) -> Tensor:
        """The token and the slot of each row of a step.

        Args:
            inputs: (3, b) fp32, whole numbers from the host: the token or ON_DEVICE, the row's
                slot, and the slot in which the row continues after an end-of-sequence.
            last_tokens: (2, s) int64, by slot: the last sampled token, and the slot in which the
                row continues.

        Returns:
            (2, b) int64: the token to feed and the slot to advance.
        """
        return next_token.next_inputs(inputs, last_tokens)

    def allow_only(self, logits: Tensor, allowed: Tensor) -> None:
        """Exclude tokens from the choice, in place: their logits become −infinity, or NaN if they
        are not finite, so that `sample` still sees it.

        Args:
            logits: (b, v) fp32.
            allowed: (b, ⌈v/32⌉) int32, a bit for each token, the lowest bit first.
        """
        allowed_tokens.allow_only(logits, allowed)

    def sample(self, logits: Tensor, params: Tensor) -> Tensor:
        """One token for each row of logits (b, v) fp32, by the rule of `reference/sampling.py`.

        Args:
            params: (b, len(Column)) fp32.

        Returns:
            (b,) int64; NO_TOKEN for a row that holds +infinity or NaN, or only −infinity.
        """
        return sampling.sample(logits, params)

    def remember_tokens(
        self,
        sampled: Tensor,
        inputs: Tensor,
        *,
        live_slots: Tensor,
        is_eos: Tensor,
        last_tokens: Tensor,
    ) -> Tensor:
        """Store the sampled tokens of the rows for the next step.

        Args:
            sampled: (b,) int64.  inputs, last_tokens: as in `next_inputs`; last_tokens changes at
                the rows' slots.
            live_slots: (b,) int64, what `next_inputs` returned.  is_eos: (v,) bool.

        Returns:
            (b,) int64, the tokens as they were sampled. A stored token is always inside the
            vocabulary, also for NO_TOKEN: the row's further launched steps must not read outside
            the embedding table.
        """
        return next_token.remember_tokens(
            sampled, inputs, live_slots=live_slots, is_eos=is_eos, last_tokens=last_tokens
        )


REFERENCE = Ops()
