"""The inputs of a pass of the model as one tensor, and its outputs.

One copy carries everything from the host. For rows that decode: the token, the slots and the
sampling parameters. For prompts: the tokens, the slots and the start of each. Whole numbers are
exact in fp32 up to 2²⁴.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from falcon_mamba_app.engine.runner.penalties import pack_params, uniform
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import SCRATCH_SLOT
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.ops.reference.next_token import ON_DEVICE
from falcon_mamba_app.ops.reference.sampling import Column

NUM_INPUTS, NUM_PARAMS = 3, len(Column)  # per row, for `Ops.next_inputs` and `Ops.sample`


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a pass: rows that decode, and prompt tokens of `num_prompts` sequences.

    Unused places are padding: rows in the scratch slot, tokens that belong to no sequence, and
    sequences without tokens.
    """

    num_rows: int
    num_tokens: int = 0
    num_prompts: int = 0

    @property
    def sizes(self) -> list[int]:
        """The sizes of the parts of the inputs, in their order."""
        inputs, params = NUM_INPUTS * self.num_rows, NUM_PARAMS * self.num_rows
        num_starts = self.num_prompts + 1 if self.num_prompts else 0
        return [inputs, params, self.num_tokens, self.num_prompts, num_starts]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that decode: inputs (NUM_INPUTS, b) and params (b, NUM_PARAMS), both fp32."""

    inputs: Tensor
    params: Tensor


@dataclass(frozen=True, slots=True)
class StepTensors:
    """The results of a pass on the device.

    hidden: (b + t, h) after the final norm, the rows first.  live_slots, sampled: (b,) int64.
    logits: (b, v) fp32 of the rows. Without rows all three are None. `sampled` is also None until
    tokens have been drawn from the logits.
    """

    hidden: Tensor
    rows: Rows
    live_slots: Tensor | None = None
    logits: Tensor | None = None
    sampled: Tensor | None = None


def padding(shape: Shape) -> Tensor:
    """Inputs of nothing but padding: greedy rows in the scratch slot, sequences without tokens."""
    assert SCRATCH_SLOT == 0, f"padding rows need {SCRATCH_SLOT=} to be 0"
    return torch.zeros(sum(shape.sizes))


def pack(rows: list[Sequence], chunks: list[PrefillChunk], shape: Shape) -> Tensor:
    """The inputs of a pass over rows and chunks, fp32 in host memory."""
    inputs = padding(shape)
    parts = inputs.split(shape.sizes)
    if rows:
        decoding = _rows(parts)
        decoding.inputs[:, : len(rows)] = torch.tensor(
            [_inputs(seq) for seq in rows], dtype=torch.float32
        ).T
        numbers = [uniform(seq.seed, seq.num_launched_tokens) for seq in rows]
        decoding.params[: len(rows)] = pack_params([seq.sampling for seq in rows], numbers)
    if chunks:
        _, _, token_ids, slots, starts = parts
        read = [i for c in chunks for i in c.seq.tokens(c.start, c.end)]
        token_ids[: len(read)] = torch.tensor(read, dtype=torch.float32)
        slots[: len(chunks)] = torch.tensor([float(chunk.seq.slot or 0) for chunk in chunks])
        ends = torch.tensor([float(end) for end in starts_of(chunks)[1:]])
        starts[1 : len(ends) + 1], starts[len(ends) + 1 :] = ends, float(len(read))
    return inputs


def unpack(inputs: Tensor, shape: Shape) -> tuple[Rows, Batch]:
    """The rows that decode, and the prompts, of inputs on any device."""
    parts = inputs.split(shape.sizes)
    return _rows(parts), Batch(*(part.long() for part in parts[2:]))


def starts_of(chunks: list[PrefillChunk]) -> list[int]:
    """The start of each chunk among the prompt tokens of a pass, and the end of the last one."""
    return list(accumulate((chunk.end - chunk.start for chunk in chunks), initial=0))


def _rows(parts: tuple[Tensor, ...]) -> Rows:
    inputs, params = parts[:2]
    return Rows(inputs.view(NUM_INPUTS, -1), params.view(-1, NUM_PARAMS))


def _inputs(seq: Sequence) -> tuple[int, int, int]:
    """The token to feed or ON_DEVICE, the slot, and the slot after an end-of-sequence."""
    assert seq.slot is not None, f"{seq.seq_id=} has no slot"
    token_id = ON_DEVICE if seq.next_token_id is None else seq.next_token_id
    return token_id, seq.slot, seq.slot if seq.sampling.ignore_eos else SCRATCH_SLOT
