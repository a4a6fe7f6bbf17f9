"""Which passes are captured, and that their padding changes nothing; the graphs are GPU tests."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.runner.graphs import (
    MAX_PROMPTS,
    NUM_TURNS,
    PROMPT_TOKENS,
    PinnedInputs,
    ladder,
    shapes_for,
    smallest_shape,
    wanted_shapes,
)
from falcon_mamba_app.engine.runner.passes import Passes
from falcon_mamba_app.engine.runner.step_tensors import Shape, pack, padding
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.triton.ops import TRITON, TritonOps
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import make_sequence, ours, random_prompt


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 8, 9, 64])
def test_every_number_of_rows_has_a_graph_of_little_padding(max_rows):
    shapes = wanted_shapes(max_rows)
    for num_rows in range(1, max_rows + 1):
        shape = smallest_shape(shapes, num_rows, 0, 0)
        assert shape is not None and shape.num_tokens == 0
        assert num_rows <= shape.num_rows < 2 * num_rows or shape.num_rows - num_rows < 8
    assert ladder(max_rows)[-1] == max_rows


def test_rows_and_prompts_share_a_pass_where_both_fit():
    shapes = wanted_shapes(20)
    assert smallest_shape(shapes, 3, 65, 2) == Shape(8, 128, MAX_PROMPTS)
    assert smallest_shape(shapes, 20, 1, 1) == Shape(20, 64, MAX_PROMPTS)
    assert smallest_shape(shapes, 0, 257, 1) == Shape(0, 512, MAX_PROMPTS)
    assert smallest_shape(shapes, 0, max(PROMPT_TOKENS) + 1, 1) is None
    assert smallest_shape(shapes, 3, 65, MAX_PROMPTS + 1) is None
    assert smallest_shape(shapes, 21, 0, 0) is None


class RowsOnly(TritonOps):
    can_capture_prompts = False


def test_only_what_never_waits_for_the_device_is_captured():
    assert shapes_for(REFERENCE, 4) == []
    assert shapes_for(TRITON, 4) == wanted_shapes(4)
    assert shapes_for(RowsOnly(), 4) == [Shape(1), Shape(2), Shape(4)]


@pytest.mark.parametrize("shape", [Shape(2, 12, 3), Shape(2, 16, 3), Shape(5, 30, 8)], ids=str)
def test_one_pass_over_rows_and_prompts_is_a_pass_over_each(shape):
    """With any padding: rows in the scratch slot, tokens of nobody, sequences of none."""
    model = ours(make_model("falcon_mamba"))
    rows = [make_sequence(random_prompt(1, seed=i)) for i in range(2)]
    read = [make_sequence(random_prompt(9, seed=10 + i)) for i in range(3)]
    chunks = [PrefillChunk(seq, 0, end) for seq, end in zip(read, (3, 1, 8), strict=True)]
    for slot, seq in zip((3, 1, 5, 2, 4), [*rows, *read], strict=True):
        seq.slot = slot

    def passes(*parts):
        pool = StatePool(model.config, max_running=6, device=model.device, dtype=model.dtype)
        for slot in range(pool.num_slots):
            pool.clear(slot)  # as `take` would
        passes = Passes(model, pool, eos_token_ids=frozenset({2}))
        with torch.inference_mode():
            steps = [passes.advance(pack(*part), part[2]) for part in parts]
            tokens = next(passes.choose(step) for step in steps if step.logits is not None).sampled
        return tokens[:2].tolist(), pool

    together, one = passes((rows, chunks, shape))
    apart, two = passes((rows, [], Shape(2)), ([], chunks, Shape(0, 12, 3)))
    assert together == apart
    torch.testing.assert_close(one.ssm_states[:, 1:], two.ssm_states[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.conv_states[:, 1:], two.conv_states[:, 1:], atol=1e-5, rtol=1e-5)
    assert not one.ssm_states[:, 6].any()


def test_capturing_and_warming_up_touch_the_scratch_slot_alone():
    """Whatever is captured is run, on padding; a warm-up reads tokens into the scratch slot."""
    model = ours(make_model("falcon_mamba"))
    pool = StatePool(model.config, max_running=3, device=model.device, dtype=model.dtype)
    generator = torch.Generator().manual_seed(0)
    for states in (pool.conv_states, pool.ssm_states):
        states.copy_(torch.randn(states.shape, generator=generator))
    before = pool.conv_states.clone(), pool.ssm_states.clone()
    passes = Passes(model, pool, eos_token_ids=frozenset(range(model.config.vocab_size)))
    last_tokens = passes._last_tokens.clone()
    with torch.inference_mode():
        for shape in wanted_shapes(3):
            step = passes.advance(padding(shape), shape)
            if step.logits is not None:
                passes.choose(step)
    assert torch.equal(pool.conv_states[:, 1:], before[0][:, 1:])
    assert torch.equal(pool.ssm_states[:, 1:], before[1][:, 1:])
    assert torch.equal(passes._last_tokens[:, 1:], last_tokens[:, 1:])
    assert passes._last_tokens[1, 0] == 0  # padding stays in the scratch slot even after an end


def test_the_inputs_of_a_pass_wait_for_those_of_four_passes_before_and_pin_nothing(monkeypatch):
    told, empty = [], torch.empty

    class Event:
        def __init__(self):
            self.name = sum(what == "made" for what, _ in told)
            told.append(("made", self.name))

        def synchronize(self):
            told.append(("waited", self.name))

        def record(self):
            told.append(("recorded", self.name))

    def pinned(size, *, pin_memory):
        told.append(("pinned", size))
        return empty(size)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", pinned)
        patch.setattr(torch.cuda, "Event", Event)
        inputs = PinnedInputs(3)
    assert [what for what, _ in told] == ["pinned"] * NUM_TURNS + ["made"] * NUM_TURNS
    told.clear()
    device = torch.zeros(3)
    for i in range(NUM_TURNS + 1):
        inputs.send(torch.full((3,), float(i)), device)
        assert device.tolist() == [i] * 3
    turns = [*range(NUM_TURNS), 0]
    assert told == [(what, turn) for turn in turns for what in ("waited", "recorded")]
