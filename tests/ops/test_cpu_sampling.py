"""The compiled choice of a token against the one in plain torch."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.runner.penalties import pack_params
from falcon_mamba_app.ops.cpu.sampling import sample
from falcon_mamba_app.ops.reference.sampling import sample as reference
from falcon_mamba_app.protocol import SamplingParams

FILTERS = [
    SamplingParams(**dict(zip(("temperature", "top_k", "top_p", "min_p"), values, strict=True)))
    for values in (
        (0.0, 0, 1.0, 0.0),
        (1.0, 0, 1.0, 0.0),
        (1e-4, 0, 1.0, 0.0),
        (0.8, 0, 0.95, 0.0),
        (2.0, 0, 0.999, 0.0),
        (1.0, 0, 1e-6, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 40, 1.0, 0.0),
        (1.0, 10_000, 1.0, 0.0),
        (1.0, 0, 1.0, 0.05),
        (1.3, 200, 0.9, 0.01),
    )
] + [
    SamplingParams(top_n_sigma=1.0),
    SamplingParams(typical_p=0.5),
    SamplingParams(typical_p=0.9, temperature=0.3, top_k=40),
    SamplingParams(xtc_probability=0.5, xtc_threshold=0.05),
    SamplingParams(xtc_probability=1.0, xtc_threshold=0.0),
    SamplingParams(top_n_sigma=1.5, typical_p=0.8, xtc_probability=1.0, top_p=0.95, min_p=0.01),
]


def make_params(filters, uniforms) -> torch.Tensor:
    return pack_params([filters] * len(uniforms), uniforms)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("vocab_size", [5, 1000])
def test_the_tokens_are_those_of_plain_torch(vocab_size, filters):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(300, vocab_size, generator=generator) * 3
    uniforms = torch.rand(300, generator=generator).tolist()
    params = make_params(filters, uniforms)
    is_equal = sample(logits.clone(), params) == reference(logits.clone(), params)
    # A sum in another order may move an edge, or a draw, that lies within 1e-7 of it.
    assert is_equal.sum() >= 299


def test_rows_with_different_filters_share_a_batch():
    logits = torch.randn(len(FILTERS), 300)
    params = pack_params(FILTERS, [0.4] * len(FILTERS))
    alone = [sample(logits[i : i + 1], params[i : i + 1]) for i in range(len(FILTERS))]
    assert torch.equal(sample(logits, params), torch.cat(alone))


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
def test_a_token_that_cannot_be_is_never_drawn(number):
    logits = torch.full((1, 50), float("-inf"))
    logits[0, [7, 30]] = torch.tensor([1.0, 2.0])
    token_id = sample(logits, make_params(SamplingParams(), [number])).item()
    assert token_id in (7, 30)


def test_ties_at_the_edge_stay():
    logits = torch.zeros(1, 8)
    params = make_params(SamplingParams(top_k=2), [0.99])
    assert sample(logits, params).item() == reference(logits, params).item() == 7
