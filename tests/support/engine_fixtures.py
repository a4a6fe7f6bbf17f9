"""The tiny model in our modules, and engines over it that tests step themselves."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import torch

from falcon_mamba_app.engine.build import build_engine
from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Admitted, Ended, EngineEvent, Sampled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import REFERENCE, Ops
from falcon_mamba_app.protocol import SamplingParams

EOS = 2
_ids = itertools.count(1)


def ours(theirs: Any, ops: Ops = REFERENCE) -> FalconMamba:
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
    return build_engine(model, **{**options, **overrides})


def make_sequence(
    prompt: list[int],
    *,
    session_id: str | None = None,
    reuse_id: str | None = None,
    save_points: tuple[int, ...] = (),
    **sampling: Any,
) -> Sequence:
    sampling = {"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True, **sampling}
    score_prompt = sampling.pop("score_prompt", None)
    params = SamplingParams(**sampling)
    return Sequence(
        seq_id=next(_ids),
        prompt_token_ids=list(prompt),
        sampling=params,
        seed=params.seed or 0,
        session_id=session_id,
        reuse_id=reuse_id,
        save_points=save_points,
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


@dataclass(frozen=True)
class Wish:
    """What a request asks for."""

    prompt: list[int]
    sampling: dict[str, Any]

    def alone(self, model: FalconMamba) -> list[int]:
        """The reply in an engine of its own."""
        return generate(make_engine(model), self.prompt, **self.sampling)


@dataclass
class Crowd:
    """Requests that join at random, leave, are cancelled and come again."""

    engine: Engine
    wishes: list[Wish]
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    added: list[tuple[Wish, Sequence]] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    resumed: set[int] = field(default_factory=set)
    retried: set[int] = field(default_factory=set)
    _open: dict[int, Sequence] = field(default_factory=dict)

    def run(self, num_requests: int) -> None:
        """Until so many have been added and all have come to an end."""
        while len(self.added) < num_requests:
            if self.rng.random() < 0.35:
                self._add()
            elif self._open and self.rng.random() < 0.1:
                self._cancel()
            self._see(self.engine.step())
        self._see(finish(self.engine))
        assert not self._open

    def _add(self) -> None:
        wish, session_id = self.rng.choice(self.wishes), self.rng.choice([None, "a", "b"])
        is_retry = bool(self.added) and self.rng.random() < 0.2
        if is_retry:
            wish, session_id = self.added[-1][0], self.added[-1][1].session_id
        seq = make_sequence(wish.prompt, session_id=session_id, **wish.sampling)
        if is_retry:
            self.retried.add(seq.seq_id)
        self.engine.add(seq)
        self.added.append((wish, seq))
        self._open[seq.seq_id] = seq

    def _cancel(self) -> None:
        seq_id = self.rng.choice(list(self._open))
        self.engine.abort(seq_id)
        self.cancelled.add(seq_id)
        del self._open[seq_id]

    def _see(self, events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, Ended):
                self._open.pop(event.seq_id, None)
            if isinstance(event, Admitted) and event.num_reused_tokens:
                self.resumed.add(event.seq_id)


def assert_a_thousand_requests_answer_as_if_alone(engine: Engine, reference: FalconMamba) -> None:
    """Greedy ones and seeded ones; of one that was cancelled the beginning. Slots are counted."""
    rng = random.Random(7)
    prompts = [random_prompt(rng.randint(1, 30), seed=i) for i in range(12)]
    greedy = {"max_new_tokens": 6}
    seeded = {"max_new_tokens": 4, "temperature": 0.9, "seed": 5}
    narrow = {"max_new_tokens": 5, "temperature": 1.3, "top_p": 0.9, "top_k": 40, "seed": 6}
    wishes = [Wish(prompt, options) for prompt in prompts for options in (greedy, seeded, narrow)]
    expected = {id(wish): wish.alone(reference) for wish in wishes}
    crowd = Crowd(engine, wishes)
    crowd.run(1_000)
    assert len(crowd.added) == 1_000
    for wish, seq in crowd.added:
        reply, alone = seq.output_token_ids, expected[id(wish)]
        if seq.seq_id in crowd.cancelled:
            assert reply == alone[: len(reply)]
        else:
            assert reply == alone, f"{wish=} {seq.session_id=}"
    assert min(len(crowd.cancelled), len(crowd.resumed), len(crowd.retried)) > 80
    assert engine.pool.num_free == 4


class States:
    """State tensors for calling the model directly, all zero."""

    def __init__(self, config: ModelConfig, num_slots: int = 4) -> None:
        self.conv, self.ssm = map(torch.zeros, config.state_shapes.of_slots(num_slots))

    def at(self, slot: int) -> torch.Tensor:
        """Everything the slot holds, as one vector."""
        return torch.cat([self.conv[:, slot].flatten(), self.ssm[:, slot].flatten()])


@torch.inference_mode()
def logits_after(
    model: FalconMamba, batch: Batch, conv_states: torch.Tensor, ssm_states: torch.Tensor
) -> torch.Tensor:
    """The logits (t, v) after each token of the batch."""
    hidden = model(batch, conv_states, ssm_states)
    return model.step_logits(hidden) if batch.is_step else model.prompt_logits(hidden)


def logits_from_nothing(model: FalconMamba, token_ids: list[int]) -> torch.Tensor:
    """The logits (t, v) after each token of a prompt, from an empty state, on the CPU."""
    c = model.config
    conv_states = torch.zeros(c.num_layers, 2, c.d_conv - 1, c.d_inner, dtype=model.dtype)
    ssm_states = torch.zeros(c.num_layers, 2, c.d_state, c.d_inner)
    starts = torch.tensor([0, len(token_ids)])
    batch = Batch(torch.tensor(token_ids), torch.tensor([1]), starts)
    return logits_after(model, batch, conv_states, ssm_states)


@torch.inference_mode()
def prefill(model: FalconMamba, states: States, slot: int, token_ids: list[int]) -> torch.Tensor:
    """Read tokens into one slot; returns their logits (t, v)."""
    starts = torch.tensor([0, len(token_ids)])
    batch = Batch(torch.tensor(token_ids), torch.tensor([slot]), starts)
    return logits_after(model, batch, states.conv, states.ssm)


@torch.inference_mode()
def decode(model: FalconMamba, states: States, slots: list[int], ids: list[int]) -> torch.Tensor:
    """Read one token into each slot; returns their logits (b, v)."""
    batch = Batch(torch.tensor(ids), torch.tensor(slots))
    return logits_after(model, batch, states.conv, states.ssm)
