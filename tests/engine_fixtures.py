"""The tiny model in our modules, and engines over it that tests step themselves."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from falcon_mamba_app.engine.engine import Ended, Engine, EngineEvent, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import Batch, FalconMamba
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.reference import REFERENCE
from falcon_mamba_app.protocol import SamplingParams

EOS = 2
_ids = itertools.count(1)


def ours(theirs: nn.Module, ops: Ops = REFERENCE) -> FalconMamba:
    """Our modules over the tensors of a transformers model."""
    config = ModelConfig.from_json(theirs.config.to_dict())
    with torch.device("meta"):
        model = FalconMamba(config, ops)
    model.load_state_dict(theirs.state_dict(), assign=True)
    model.prepare()
    return model


def random_prompt(length: int, seed: int = 0) -> list[int]:
    """Token ids that are never special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, 200, (length,), generator=generator).tolist()


def make_engine(model: FalconMamba, **overrides: Any) -> Engine:
    options: dict[str, Any] = {
        "eos_token_ids": frozenset({EOS}),
        "max_running": 4,
        "max_prefill_tokens": 64,
        "max_snapshot_bytes": 2**30,
    }
    return Engine(model, **{**options, **overrides})


def make_sequence(prompt: list[int], *, session_id: str | None = None, **sampling: Any) -> Sequence:
    sampling = {"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True, **sampling}
    score_prompt = sampling.pop("score_prompt", None)
    params = SamplingParams(**sampling)
    return Sequence(
        seq_id=next(_ids),
        prompt_token_ids=list(prompt),
        sampling=params,
        seed=params.seed or 0,
        session_id=session_id,
        score_prompt=score_prompt,
    )


def finish(engine: Engine) -> list[EngineEvent]:
    """Step until nothing is left to do."""
    events: list[EngineEvent] = []
    for _ in range(10_000):
        if not engine.has_work:
            return events
        events += engine.step()
    raise AssertionError("the engine does not come to an end")


def generate(engine: Engine, prompt: list[int], **options: Any) -> list[int]:
    """The reply's token ids, with nobody else in the batch."""
    seq = make_sequence(prompt, **options)
    engine.add(seq)
    finish(engine)
    return seq.output_token_ids


def tokens_of(events: list[EngineEvent], seq: Sequence) -> list[int]:
    return [
        event.token.token_id
        for event in events
        if isinstance(event, Sampled) and event.seq_id == seq.seq_id
    ]


def reasons_of(events: list[EngineEvent], seq: Sequence) -> list[str]:
    return [e.reason for e in events if isinstance(e, Ended) and e.seq_id == seq.seq_id]


class States:
    """State tensors for calling the model directly, all zero."""

    def __init__(self, config: ModelConfig, num_slots: int = 4) -> None:
        layers, d = config.num_layers, config.d_inner
        self.conv = torch.zeros(layers, num_slots, config.d_conv - 1, d)
        self.ssm = torch.zeros(layers, num_slots, config.d_state, d)

    def at(self, slot: int) -> torch.Tensor:
        """Everything the slot holds, as one vector."""
        return torch.cat([self.conv[:, slot].flatten(), self.ssm[:, slot].flatten()])


@torch.inference_mode()
def prefill(model: FalconMamba, states: States, slot: int, token_ids: list[int]) -> torch.Tensor:
    """Read tokens into one slot; returns their logits (t, v)."""
    starts = torch.tensor([0, len(token_ids)])
    batch = Batch(torch.tensor(token_ids), torch.tensor([slot]), starts)
    return model.logits(model(batch, states.conv, states.ssm), is_step=batch.is_step)


@torch.inference_mode()
def decode(model: FalconMamba, states: States, slots: list[int], ids: list[int]) -> torch.Tensor:
    """Read one token into each slot; returns their logits (b, v)."""
    batch = Batch(torch.tensor(ids), torch.tensor(slots))
    return model.logits(model(batch, states.conv, states.ssm), is_step=batch.is_step)
