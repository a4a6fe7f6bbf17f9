"""One pass of the model over packed inputs, launched as it is or captured in a graph.

A decode step can be launched before the host has read the previous one: the device itself gives
each row its last token and knows which rows have ended. This module knows no sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from falcon_mamba_app.engine.runner.graphs import shapes_for
from falcon_mamba_app.engine.runner.step_tensors import NUM_INPUTS, Shape, StepTensors, unpack
from falcon_mamba_app.engine.states.pool import SCRATCH_SLOT, StatePool
from falcon_mamba_app.model.batch import Batch, LayerInputs
from falcon_mamba_app.model.falcon_mamba import FalconMamba


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that were read on a copy of the slot's state; logits (t, v) fp32 follow each."""

    slot: int
    batch: Batch
    logits: Tensor


class Passes:
    """Runs the model over the slots of a StatePool, and chooses its rows' tokens."""

    def __init__(
        self, model: FalconMamba, pool: StatePool, *, eos_token_ids: frozenset[int]
    ) -> None:
        self.model, self.pool = model, pool
        self.eos_token_ids = eos_token_ids
        is_eos = [token_id in eos_token_ids for token_id in range(model.config.vocab_size)]
        self._is_eos = torch.tensor(is_eos, device=model.device)
        # By slot: the token that the newest decode step sampled, and the slot in which the row
        # continues: its own, or the scratch slot once that token has ended the reply.
        last_tokens = [[0] * pool.num_slots, list(range(pool.num_slots))]
        self._last_tokens = torch.tensor(last_tokens, device=model.device)

    def shapes_to_capture(self) -> list[Shape]:
        """None on a CPU, which launches as fast as it would replay."""
        is_on_gpu = self.model.device.type == "cuda"
        return shapes_for(self.model.ops, self.pool.num_slots - 1) if is_on_gpu else []

    def run(self, inputs: Tensor, shape: Shape, num_layers: int | None = None) -> StepTensors:
        """The captured part of a pass. A warm-up runs only the first `num_layers`."""
        step = self.advance(inputs, shape, num_layers)
        return step if step.logits is None else self.choose(step)

    def advance(self, inputs: Tensor, shape: Shape, num_layers: int | None = None) -> StepTensors:
        """One pass over `inputs`, as `pack` makes them, on the device."""
        rows, prompts = unpack(inputs, shape)
        if not shape.num_rows:
            return StepTensors(self._hidden(prompts, num_layers), rows)
        token_ids, live_slots = self.model.ops.next_inputs(rows.inputs, self._last_tokens)
        batch = Batch(token_ids, live_slots)
        batch = prompts.behind_rows(batch) if shape.num_tokens else batch
        hidden = self._hidden(batch, num_layers)
        logits = self.model.step_logits(hidden[: shape.num_rows])
        return StepTensors(hidden, rows, live_slots, logits)

    def _hidden(self, batch: Batch, num_layers: int | None) -> Tensor:
        conv_states = self.pool.conv_states[:num_layers]
        hidden: Tensor = self.model(batch, conv_states, self.pool.ssm_states[:num_layers])
        return hidden

    def choose(self, step: StepTensors) -> StepTensors:
        """Sample each row's token and store it for the next step. A second call samples again."""
        ops, rows = self.model.ops, step.rows
        assert step.logits is not None and step.live_slots is not None, "a pass without rows"
        sampled = ops.sample(step.logits, rows.params)
        sampled = ops.remember_tokens(
            sampled,
            rows.inputs,
            live_slots=step.live_slots,
            is_eos=self._is_eos,
            last_tokens=self._last_tokens,
        )
        return replace(step, sampled=sampled)

    def try_out(self, slot: int, token_ids: list[int]) -> Draft:
        """Read tokens after the slot's state, on a copy of it; the slot stays as it is."""
        self.pool.copy(slot, to=SCRATCH_SLOT)
        batch = _one_sequence(SCRATCH_SLOT, token_ids, self.model.device, draft=[])
        return Draft(slot, batch, self.model.step_logits(self._hidden(batch, None)))

    def keep(self, draft: Draft, num_tokens: int) -> None:
        """Advance the draft's slot over its first tokens."""
        assert draft.batch.draft is not None, "not a draft"
        token_ids = draft.batch.token_ids.tolist()
        if num_tokens == len(token_ids):
            self.pool.copy(SCRATCH_SLOT, to=draft.slot)
            return
        batch = _one_sequence(draft.slot, token_ids[:num_tokens], self.model.device)
        inputs = [layer.first(num_tokens) for layer in draft.batch.draft]
        self.model.advance(inputs, self.pool.conv_states, self.pool.ssm_states, batch)

    def feed_nothing(self) -> None:
        """Run the smallest kernel, so that the compiler loads its own parts."""
        self.model.ops.next_inputs(
            torch.zeros(NUM_INPUTS, 1, device=self.model.device), self._last_tokens
        )

    def to_device(self, values: Tensor) -> Tensor:
        """Copy a small host tensor to the device, without waiting for the device."""
        if self.model.device.type == "cpu":
            return values
        return values.pin_memory().to(self.model.device, non_blocking=True)


def _one_sequence(
    slot: int, token_ids: list[int], device: torch.device, *, draft: list[LayerInputs] | None = None
) -> Batch:
    ids, slots, starts = (
        torch.tensor(values, device=device) for values in (token_ids, [slot], [0, len(token_ids)])
    )
    return Batch(ids, slots, starts, draft)
