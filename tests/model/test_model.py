"""The carried state against transformers run one-shot: outputs and states, at awkward sizes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from falcon_mamba_app.model.batch import Batch
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import States, decode, ours, prefill, random_prompt

FAMILIES = ["falcon_mamba", "mamba"]
LENGTH = 65
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    theirs = make_model(request.param)
    return theirs, ours(theirs)


@pytest.fixture(scope="module")
def model(pair):
    return pair[1]


@torch.inference_mode()
def their_logits(theirs, prompt):
    return theirs(torch.tensor([prompt])).logits[0].float()


def test_one_shot_logits_equal_those_of_transformers(pair):
    theirs, model = pair
    prompt = random_prompt(LENGTH)
    logits = prefill(model, States(model.config), 1, prompt)
    assert_close(logits, their_logits(theirs, prompt), **TOLERANCE)


@pytest.mark.parametrize(
    "overrides",
    [
        {"tie_word_embeddings": False},
        {"use_bias": True},
        {"use_conv_bias": False},
        {"residual_in_fp32": False},
        {"state_size": 16, "conv_kernel": 2, "time_step_rank": 3},
    ],
    ids=lambda overrides: "-".join(overrides),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers_for_every_shape_of_config(family, overrides):
    theirs = make_model(family, **overrides)
    model = ours(theirs)
    prompt = random_prompt(20)
    logits = prefill(model, States(model.config), 1, prompt)
    assert_close(logits, their_logits(theirs, prompt), **TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 7, 64, LENGTH - 1, LENGTH, LENGTH + 1])
def test_chunked_prefill_equals_whole_prefill(model, chunk):
    prompt = random_prompt(LENGTH)
    states = States(model.config)
    whole = prefill(model, states, 1, prompt)
    parts = [
        prefill(model, states, 2, prompt[low : low + chunk]) for low in range(0, LENGTH, chunk)
    ]
    assert_close(torch.cat(parts), whole, **TOLERANCE)
    assert_close(states.at(2), states.at(1), **TOLERANCE)


@pytest.mark.parametrize(("num_conv", "num_ssm"), [(2, 2), (0, 0), (4, 4), (3, 2), (2, 3), (1, 3)])
def test_states_of_another_number_of_layers_are_refused(model, num_conv, num_ssm):
    """Those of fewer layers made a shorter model, which answered nonsense without a word."""
    states = States(model.config)
    four = torch.cat([states.conv, states.conv]), torch.cat([states.ssm, states.ssm])
    states.conv, states.ssm = four[0][:num_conv], four[1][:num_ssm]
    with pytest.raises((AssertionError, ValueError), match="layers|zip"):
        prefill(model, states, 1, [5, 6])


def test_token_by_token_equals_one_shot(model):
    prompt = random_prompt(LENGTH)
    states = States(model.config)
    whole = prefill(model, states, 1, prompt)
    steps = [decode(model, states, [3], [token_id]) for token_id in prompt]
    assert_close(torch.cat(steps), whole, **TOLERANCE)
    assert_close(states.at(3), states.at(1), **TOLERANCE)


def test_dropping_the_history_would_have_been_noticed(model):
    """The tests above could pass with a state that is never carried, if the weights forgot."""
    prompt = random_prompt(LENGTH)
    states = States(model.config)
    whole = prefill(model, states, 1, prompt)
    forgetful = prefill(model, states, 2, prompt[40:])
    assert (forgetful[-1] - whole[-1]).abs().max() > 1e-2


def test_dropping_only_the_convolution_window_would_have_been_noticed(model):
    prompt = random_prompt(LENGTH)
    states = States(model.config)
    whole = prefill(model, states, 1, prompt)
    prefill(model, states, 2, prompt[:40])
    states.conv[:, 2] = 0
    resumed = prefill(model, states, 2, prompt[40:])
    assert (resumed[0] - whole[40]).abs().max() > 1e-2


def test_packed_sequences_of_different_lengths_equal_each_alone(model):
    prompts = [random_prompt(length, seed=length) for length in (1, 2, 3, 17)]
    alone, packed = States(model.config, 5), States(model.config, 5)
    expected = [prefill(model, alone, slot, p) for slot, p in enumerate(prompts, start=1)]
    starts = torch.tensor([0, 1, 3, 6, 23])
    slots = torch.tensor([1, 2, 3, 4])
    token_ids = torch.tensor([token_id for prompt in prompts for token_id in prompt])
    with torch.inference_mode():
        hidden = model(Batch(token_ids, slots, starts), packed.conv, packed.ssm)
        logits = model.prompt_logits(hidden)
    assert_close(logits, torch.cat(expected), **TOLERANCE)
    for slot in range(1, 5):
        assert_close(packed.at(slot), alone.at(slot), **TOLERANCE)


def test_a_row_of_a_batch_equals_the_row_alone(model):
    alone, batched = States(model.config), States(model.config)
    for slot in (1, 2, 3):
        prefill(model, alone, slot, random_prompt(10, seed=slot))
        prefill(model, batched, slot, random_prompt(10, seed=slot))
    expected = [decode(model, alone, [slot], [50 + slot]) for slot in (3, 1, 2)]
    logits = decode(model, batched, [3, 1, 2], [53, 51, 52])
    assert_close(logits, torch.cat(expected), **TOLERANCE)
    for slot in (1, 2, 3):
        assert_close(batched.at(slot), alone.at(slot), **TOLERANCE)


def test_slots_that_are_not_named_keep_their_state_bit_for_bit(model):
    states = States(model.config)
    states.conv.normal_()
    states.ssm.normal_()
    before = states.at(1).clone(), states.at(3).clone()
    prefill(model, states, 2, random_prompt(9))
    decode(model, states, [2], [11])
    assert torch.equal(states.at(1), before[0])
    assert torch.equal(states.at(3), before[1])


def test_padding_rows_may_share_the_scratch_slot(model):
    alone, padded = States(model.config), States(model.config)
    expected = decode(model, alone, [2], [42])
    logits = decode(model, padded, [2, 0, 0], [42, 1, 1])
    assert_close(logits[:1], expected, **TOLERANCE)
    assert_close(padded.at(2), alone.at(2), **TOLERANCE)
