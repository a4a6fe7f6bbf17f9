"""The sampling kernel against the rule in plain torch."""

from __future__ import annotations

import random

import pytest
import torch

from falcon_mamba_app.engine.sampler import pack_params, uniform
from falcon_mamba_app.ops.sampling import sample
from falcon_mamba_app.ops.triton_sample import sample_rows
from falcon_mamba_app.protocol import SamplingParams

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def both(logits, rows, uniforms):
    params = pack_params(rows, uniforms)
    expected = sample(logits, params)
    return sample_rows(logits.to(DEVICE), params.to(DEVICE)).cpu().tolist(), expected.tolist()


def random_params(rng):
    return SamplingParams(
        temperature=rng.choice([0.0, 0.3, 1.0, 2.0]),
        top_k=rng.choice([0, 1, 5, 50, 10_000]),
        top_p=rng.choice([0.05, 0.5, 0.9, 0.999, 1.0]),
        min_p=rng.choice([0.0, 0.05, 1.0]),
    )


@pytest.mark.parametrize("vocab_size", [5, 300, 1_000])
def test_the_kernel_draws_what_the_rule_says(vocab_size):
    rng, generator = random.Random(vocab_size), torch.Generator().manual_seed(vocab_size)
    logits = 3 * torch.randn(24, vocab_size, generator=generator)
    rows = [random_params(rng) for _ in range(24)]
    ours, expected = both(logits, rows, [uniform(i, 0) for i in range(24)])
    # A number that falls on a border between two tokens may round to either side.
    assert sum(a != b for a, b in zip(ours, expected, strict=True)) <= 1


def test_ties_at_the_edge_stay():
    logits = torch.zeros(1, 8)
    ours = {both(logits, [SamplingParams(top_k=2)], [i / 64])[0][0] for i in range(64)}
    assert ours == set(range(8))


def test_greedy_takes_the_first_of_equals():
    logits = torch.tensor([[0.0, 7.0, 7.0, 1.0]])
    assert both(logits, [SamplingParams(temperature=0.0)], [0.9]) == ([1], [1])


def test_the_last_uniform_number_never_draws_an_excluded_token():
    logits = torch.tensor([[0.0, 0.0, -1e9, -1e9]])
    assert both(logits, [SamplingParams()], [1 - 2**-24])[0] == [1]
