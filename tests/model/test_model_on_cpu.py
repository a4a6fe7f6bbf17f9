"""Whole models on the compiled CPU kernels against themselves on plain torch."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    States,
    decode,
    generate,
    logits_after,
    make_engine,
    ours,
    prefill,
    random_prompt,
)

LOGITS = {"atol": 1e-4, "rtol": 0.0}


def twins(model: FalconMamba) -> tuple[FalconMamba, FalconMamba]:
    """The model on plain torch, and on our kernels over the same tensors."""
    with torch.device("meta"):
        other = FalconMamba(model.config, NUMBA)
    other.load_state_dict(model.state_dict(), assign=True)
    other.prepare()
    return model, other


def bundled_model() -> FalconMamba:
    model = load_model(
        locate(ModelSettings(model="nano"), has_cuda=False),
        device=torch.device("cpu"),
        dtype=torch.float32,
        make_model=lambda config: FalconMamba(config, REFERENCE),
    )
    assert isinstance(model, FalconMamba)
    return model


@pytest.fixture(scope="module", params=["falcon_mamba", "mamba", "bundled"])
def models(request):
    if request.param == "bundled":
        return twins(bundled_model())
    return twins(ours(make_model(request.param)))


def test_logits_and_states_of_the_model_equal_those_on_plain_torch(models):
    reference, compiled = models
    theirs, mine = States(reference.config), States(compiled.config)
    prompt = random_prompt(65)
    assert_close(
        prefill(compiled, mine, 1, prompt), prefill(reference, theirs, 1, prompt), **LOGITS
    )
    for token_id in (30, 40):
        expected = decode(reference, theirs, [1], [token_id])
        assert_close(decode(compiled, mine, [1], [token_id]), expected, **LOGITS)
    assert_close(mine.at(1), theirs.at(1), **LOGITS)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 64])
def test_chunked_prefill_equals_whole_prefill(models, chunk):
    model, prompt = models[1], random_prompt(65)
    states = States(model.config)
    whole = prefill(model, states, 1, prompt)
    parts = [prefill(model, states, 2, prompt[low : low + chunk]) for low in range(0, 65, chunk)]
    assert_close(torch.cat(parts), whole, **LOGITS)
    assert_close(states.at(2), states.at(1), **LOGITS)


@pytest.mark.parametrize("num_rows", [2, 5, 12])
def test_a_row_of_a_batch_equals_the_row_alone(models, num_rows):
    model = models[1]
    alone, batched = States(model.config, 13), States(model.config, 13)
    slots = list(range(num_rows, 0, -1))
    for slot in slots:
        prefill(model, alone, slot, random_prompt(6, seed=slot))
    batched.conv.copy_(alone.conv)
    batched.ssm.copy_(alone.ssm)
    expected = [decode(model, alone, [slot], [50 + slot]) for slot in slots]
    logits = decode(model, batched, slots, [50 + slot for slot in slots])
    assert_close(logits, torch.cat(expected), **LOGITS)


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.8, "seed": 7}], ids=["greedy", "seeded"]
)
def test_replies_equal_those_on_plain_torch(models, sampling):
    replies = [
        generate(make_engine(model), random_prompt(40), max_new_tokens=24, **sampling)
        for model in models
    ]
    assert replies[0] == replies[1]


def test_packed_prompts_equal_each_alone(models):
    model = models[1]
    alone, packed = States(model.config), States(model.config)
    prompts = {3: random_prompt(9, seed=1), 1: random_prompt(2, seed=2)}
    expected = [prefill(model, alone, slot, prompt) for slot, prompt in prompts.items()]
    batch = Batch(
        torch.tensor(sum(prompts.values(), [])), torch.tensor([3, 1]), torch.tensor([0, 9, 11])
    )
    logits = logits_after(model, batch, packed.conv, packed.ssm)
    assert_close(logits, torch.cat(expected), **LOGITS)
