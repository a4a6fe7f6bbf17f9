"""A row's token on its way to the next decode step, in plain torch and as kernels."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.runner.passes import Passes
from falcon_mamba_app.engine.runner.step_tensors import Shape, pack, unpack
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.reference.next_token import ON_DEVICE
from falcon_mamba_app.ops.reference.sampling import NO_TOKEN, Column
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import make_sequence, ours, random_prompt

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IS_EOS = torch.arange(10, device=DEVICE) == 7

both = pytest.mark.parametrize("ops", [REFERENCE, TRITON], ids=lambda ops: ops.name)


def inputs(*rows):
    """Rows of (token, slot, slot after an end-of-sequence), as they arrive on the device."""
    return torch.tensor(rows, dtype=torch.float32, device=DEVICE).T.contiguous()


def last_tokens(tokens, slots):
    return torch.tensor([tokens, slots], device=DEVICE)


def remember(ops, sampled, rows, live_slots, left):
    return ops.remember_tokens(
        sampled, rows, live_slots=live_slots, is_eos=IS_EOS, last_tokens=left
    )


@both
def test_a_row_reads_the_host_s_token_or_the_one_left_in_its_slot(ops):
    left = last_tokens([0, 5, 6, 7, 8], [0, 1, 2, 0, 4])
    rows = inputs((9, 1, 0), (ON_DEVICE, 2, 0), (ON_DEVICE, 3, 0), (0, 0, 0), (0, 0, 0))
    assert ops.next_inputs(rows, left).tolist() == [[9, 6, 7, 0, 0], [1, 2, 0, 0, 0]]


@both
def test_a_token_that_ends_the_reply_sends_its_row_to_the_scratch_slot(ops):
    left = last_tokens([0] * 5, range(5))
    rows = inputs((1, 4, 0), (1, 2, 0), (1, 3, 3), (0, 0, 0))
    sampled = torch.tensor([7, 6, 7, 1], device=DEVICE)
    live = torch.tensor([4, 2, 3, 0], device=DEVICE)
    assert remember(ops, sampled, rows, live, left).tolist() == [7, 6, 7, 1]
    assert left.tolist() == [[1, 0, 6, 7, 7], [0, 1, 2, 3, 0]]  # slot 3's request ignores the end


@both
def test_a_row_that_has_ended_stays_where_it_is(ops):
    left = last_tokens([0, 7], [0, 0])
    rows = inputs((ON_DEVICE, 1, 0))
    token_ids, live = ops.next_inputs(rows, left)
    remember(ops, torch.tensor([3], device=DEVICE), rows, live, left)
    assert left[1].tolist() == [0, 0]


@both
def test_what_is_remembered_lies_inside_the_vocabulary_even_where_there_was_no_token(ops):
    """The next step, launched before the host hears of it, reads an embedding by it."""
    left = last_tokens([0] * 3, range(3))
    rows, live = inputs((1, 1, 0), (1, 2, 0)), torch.tensor([1, 2], device=DEVICE)
    sampled = torch.tensor([NO_TOKEN, 4_000], device=DEVICE)
    assert remember(ops, sampled, rows, live, left).tolist() == [NO_TOKEN, 4_000]
    assert left.tolist() == [[0, 0, 9], [0, 1, 2]]


def test_what_is_packed_for_the_device_comes_out_as_it_was():
    seq = make_sequence([3, 4], temperature=0.5, top_k=6, top_p=0.75, min_p=0.25, ignore_eos=False)
    seq.slot = 2
    rows, _ = unpack(pack([seq], [], Shape(3)), Shape(3))
    assert rows.inputs.tolist() == [[4, 0, 0], [2, 0, 0], [0, 0, 0]]
    columns = [Column.TEMPERATURE, Column.TOP_K, Column.TOP_P, Column.MIN_P]
    assert rows.params[0, columns].tolist() == [0.5, 6, 0.75, 0.25]
    assert not rows.params[1:].any()


def test_padding_rows_change_no_other_row_s_token_and_no_state():
    """A graph's rows beyond those that decode: they read token 0 into the scratch slot."""
    model = ours(make_model("falcon_mamba"))
    tokens, states = [], []
    for batch_size in (2, 5):
        pool = StatePool(model.config, max_running=4, device=model.device, dtype=model.dtype)
        for slot in range(pool.num_slots):
            pool.clear(slot)  # as `take` would
        passes = Passes(model, pool, eos_token_ids=frozenset({2}))
        seqs = [make_sequence(random_prompt(1, seed=i), temperature=1.0) for i in range(2)]
        for slot, seq in zip((3, 1), seqs, strict=True):
            seq.slot = slot
        with torch.inference_mode():
            step = passes.choose(
                passes.advance(pack(seqs, [], Shape(batch_size)), Shape(batch_size))
            )
        assert step.sampled is not None
        tokens.append(step.sampled[:2].tolist())
        states.append(pool.ssm_states[:, 1:])
    assert tokens[0] == tokens[1]
    torch.testing.assert_close(states[0], states[1])
    assert not states[0][:, [1, 3]].any() and states[0][:, [0, 2]].any()
