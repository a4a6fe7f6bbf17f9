"""Sampling is a pure function of logits, parameters, seed and position."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.runner.penalties import (
    TokenCounts,
    needs_counts,
    pack_params,
    penalize,
    uniform,
)
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.ops.reference.sampling import NUM_SORTED_FIRST, sample
from falcon_mamba_app.protocol import SamplingParams

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])
PROBS = torch.softmax(LOGITS, -1)  # 0.644, 0.237, 0.087, 0.032


def draw(logits, uniforms, **params):
    """Sample one row once for each uniform number."""
    rows = [SamplingParams(**params)] * len(uniforms)
    packed = pack_params(rows, uniforms)
    return sample(logits.repeat(len(uniforms), 1), packed).tolist()


EVENLY = [i / 2_000 for i in range(2_000)]


def shares(logits, **params):
    """How often each token is drawn over evenly spread uniform numbers."""
    drawn = torch.tensor(draw(logits, EVENLY, **params))
    return drawn.bincount(minlength=logits.numel()) / len(EVENLY)


def test_without_filters_tokens_come_up_as_often_as_their_probability():
    torch.testing.assert_close(shares(LOGITS), PROBS, atol=2e-3, rtol=0)


def test_temperature_sharpens_and_flattens():
    expected = torch.softmax(LOGITS / 0.5, -1)
    torch.testing.assert_close(shares(LOGITS, temperature=0.5), expected, atol=2e-3, rtol=0)


def test_temperature_zero_takes_the_most_likely_token():
    assert draw(LOGITS, [0.0, 0.5, 0.999], temperature=0.0) == [0, 0, 0]


def test_a_tiny_temperature_is_greedy_without_overflow():
    assert draw(LOGITS * 1e4, [0.0, 0.999], temperature=1e-6) == [0, 0]


def test_top_k_keeps_the_k_most_likely():
    expected = PROBS * torch.tensor([1, 1, 0, 0]) / PROBS[:2].sum()
    torch.testing.assert_close(shares(LOGITS, top_k=2), expected, atol=2e-3, rtol=0)


def test_top_k_larger_than_the_vocabulary_keeps_all():
    torch.testing.assert_close(shares(LOGITS, top_k=1_000), PROBS, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "num_kept"), [(0.1, 1), (0.64, 1), (0.65, 2), (0.88, 2), (0.9, 3), (0.99, 4)]
)
def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass(top_p, num_kept):
    kept = PROBS[:num_kept] / PROBS[:num_kept].sum()
    drawn = shares(LOGITS, top_p=top_p)
    torch.testing.assert_close(drawn[:num_kept], kept, atol=2e-3, rtol=0)
    assert drawn[num_kept:].sum() == 0


def test_top_p_is_a_share_of_what_top_k_left():
    drawn = shares(LOGITS, top_k=2, top_p=0.7)  # 0.644 of 0.881 is 73 %
    assert drawn.tolist() == [1, 0, 0, 0]


def test_min_p_drops_what_is_unlikely_beside_the_best():
    drawn = shares(LOGITS, min_p=0.2)  # 0.087 / 0.644 = 0.135
    assert drawn[2:].sum() == 0
    assert drawn[1] > 0


def test_a_flat_distribution_beyond_the_first_sort_is_cut_exactly():
    logits = torch.zeros(4 * NUM_SORTED_FIRST)
    logits[:700] = torch.linspace(1.0, 0.9, 700)
    order = torch.softmax(logits, -1).cumsum(-1)
    num_kept = int((order < 0.8).sum()) + 1
    assert num_kept > NUM_SORTED_FIRST
    assert set(draw(logits, EVENLY, top_p=0.8)) <= set(range(num_kept))
    assert max(draw(logits, [0.9999999], top_p=0.8)) == num_kept - 1


def test_every_row_follows_its_own_parameters():
    rows = [
        SamplingParams(temperature=0.0),
        SamplingParams(top_k=1),
        SamplingParams(top_p=0.1),
        SamplingParams(),
        SamplingParams(min_p=1.0),
    ]
    packed = pack_params(rows, [0.9999] * 5)
    assert sample(LOGITS.repeat(5, 1), packed).tolist() == [0, 0, 0, 3, 0]


def test_a_row_draws_the_same_token_alone_and_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 500, generator=generator)
    rows = [SamplingParams(temperature=0.1 + i / 10, top_p=0.5 + i / 80) for i in range(32)]
    uniforms = [uniform(i, 0) for i in range(32)]
    packed = pack_params(rows, uniforms)
    together = sample(logits, packed).tolist()
    alone = [sample(logits[i : i + 1], packed[i : i + 1]).item() for i in range(32)]
    assert together == alone


def test_the_last_uniform_number_never_draws_an_excluded_token():
    logits = torch.tensor([0.0, 0.0, -1e9])
    assert draw(logits, [1 - 2**-24]) == [1]


def test_uniform_numbers_are_spread_and_reproducible():
    numbers = torch.tensor([uniform(seed, i) for seed in range(100) for i in range(100)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert numbers.histc(10, 0, 1).min() > 850
    assert uniform(5, 7) == uniform(5, 7) != uniform(5, 8) != uniform(6, 7)
    assert uniform(-1, 0) != uniform(1, 0)


def test_repetition_penalty_touches_prompt_and_reply():
    logits = torch.tensor([2.0, -2.0, 2.0])
    counts = TokenCounts([0], vocab_size=3, device=CPU)
    counts.add(torch.tensor([1]))
    penalize(logits, SamplingParams(repetition_penalty=2.0), counts)
    assert logits.tolist() == [1.0, -4.0, 2.0]


def test_presence_and_frequency_penalties_touch_the_reply_alone():
    logits = torch.zeros(3)
    counts = TokenCounts([0], vocab_size=3, device=CPU)
    for token_id in (1, 1, 2):
        counts.add(torch.tensor([token_id]))
    penalize(logits, SamplingParams(presence_penalty=0.5, frequency_penalty=1.0), counts)
    assert logits.tolist() == [0.0, -2.5, -1.5]


def test_counts_are_kept_only_where_a_penalty_needs_them():
    assert not needs_counts(SamplingParams())
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert needs_counts(SamplingParams(**{name: 1.5}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "1"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 2.0),
        ("top_n_sigma", -1.0),
        ("typical_p", 0.0),
        ("xtc_probability", 1.1),
        ("xtc_threshold", -0.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-38),
        ("presence_penalty", 2.5),
        ("frequency_penalty", float("inf")),
        ("max_new_tokens", -1),
        ("seed", 2**63),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("x" * 1_001,)),
        ("stop", tuple("abcdefghijklmnopq")),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(InvalidRequest, match=name) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
