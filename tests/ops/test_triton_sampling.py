"""The sampling kernel against the rule in plain torch."""

from __future__ import annotations

import random

import pytest
import torch

from falcon_mamba_app.engine.runner.penalties import pack_params, uniform
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.reference.sampling import NO_TOKEN
from falcon_mamba_app.ops.triton.ops import TRITON
from falcon_mamba_app.protocol import SamplingParams

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def both(logits, rows, uniforms):
    params = pack_params(rows, uniforms)
    expected = REFERENCE.sample(logits, params)
    return TRITON.sample(logits.to(DEVICE), params.to(DEVICE)).cpu().tolist(), expected.tolist()


def random_params(rng):
    return SamplingParams(
        temperature=rng.choice([0.0, 0.3, 1.0, 2.0]),
        top_k=rng.choice([0, 1, 5, 50, 10_000]),
        top_p=rng.choice([0.05, 0.5, 0.9, 0.999, 1.0]),
        min_p=rng.choice([0.0, 0.05, 1.0]),
    )


# 2,049 is one token past a part; 20,000 leave the last of 16 places for parts empty.
@pytest.mark.parametrize("vocab_size", [5, 300, 2_049, 20_000])
@pytest.mark.parametrize(
    "spread", [0.5, 3.0, 12.0, 40.0]
)  # from all tokens alike to a few that matter
def test_the_kernel_draws_what_the_rule_says(vocab_size, spread):
    rng, generator = random.Random(vocab_size), torch.Generator().manual_seed(vocab_size)
    num_rows = 24 if DEVICE.type == "cuda" else 8 if vocab_size < 1_000 else 6
    logits = spread * torch.randn(num_rows, vocab_size, generator=generator)
    rows = [random_params(rng) for _ in range(num_rows)]
    ours, expected = both(logits, rows, [uniform(i, 0) for i in range(num_rows)])
    # A number that falls on a border between two tokens may round to either side.
    assert sum(a != b for a, b in zip(ours, expected, strict=True)) <= 1


@pytest.mark.parametrize("top_k", [1, 2_047, 2_048, 2_049, 4_500])
def test_an_edge_is_found_wherever_the_parts_of_the_vocabulary_meet(top_k):
    """Weights fall by 2⁻²⁰ from token to token, all in one cell; the last that is kept is drawn."""
    logits = -torch.arange(5_000.0).unsqueeze(0) * 2**-20
    rows = [SamplingParams(top_k=top_k)]
    ours, expected = both(logits, rows, [1 - 2**-24])
    assert ours == expected == [top_k - 1]


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.999])
def test_a_tail_of_tiny_weights_is_searched_too(top_p):
    logits = torch.full((1, 5_000), -30.0)
    logits[0, 4_321] = 0.0
    rows = [SamplingParams(top_p=top_p, top_k=3_000)]
    assert both(logits, rows, [0.7]) == ([4_321], [4_321])


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value")  # of the interpreter's numpy
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_disturb_no_other_row(bad):
    logits = torch.randn(3, 3_000, generator=torch.Generator().manual_seed(1))
    rows = [SamplingParams(top_p=0.9, top_k=100)] * 3
    expected = REFERENCE.sample(logits, pack_params(rows, [0.3, 0.5, 0.7])).tolist()
    logits[1] = bad
    params = pack_params(rows, [0.3, 0.5, 0.7])
    ours = TRITON.sample(logits.to(DEVICE), params.to(DEVICE)).cpu().tolist()
    assert ours == [expected[0], NO_TOKEN, expected[2]]


def test_ties_at_the_edge_stay():
    logits = torch.zeros(1, 8)
    ours = {both(logits, [SamplingParams(top_k=2)], [(i + 0.5) / 8])[0][0] for i in range(8)}
    assert ours == set(range(8))


def test_greedy_takes_the_first_of_equals():
    logits = torch.tensor([[0.0, 7.0, 7.0, 1.0]])
    assert both(logits, [SamplingParams(temperature=0.0)], [0.9]) == ([1], [1])


def test_the_last_uniform_number_never_draws_an_excluded_token():
    logits = torch.tensor([[0.0, 0.0, -1e9, -1e9]])
    assert both(logits, [SamplingParams()], [1 - 2**-24])[0] == [1]
