"""top_n_sigma, typical_p and XTC, in plain torch and as kernels, against their definitions."""

from __future__ import annotations

import pytest
import torch
from transformers import TypicalLogitsWarper

from falcon_mamba_app.engine.runner.penalties import pack_params, uniform
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.sampling import LEAST_LOGIT
from falcon_mamba_app.ops.triton.ops import TRITON
from falcon_mamba_app.protocol import SamplingParams
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import finish, generate, make_engine, make_sequence, ours

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_cpu = pytest.mark.parametrize("ops", [REFERENCE, NUMBA], ids=lambda ops: ops.name)
everywhere = pytest.mark.parametrize("ops", [REFERENCE, NUMBA, TRITON], ids=lambda ops: ops.name)
# Flat enough that 500 numbers find every token.
LOGITS = torch.tensor([1.5, 1.2, 1.1, 0.7, 0.5, 0.1, -0.2, -0.3, -0.9, -1.4])
EVENLY = [i / 500 for i in range(500)]


def draw(ops, logits, rows, numbers):
    device = DEVICE if ops is TRITON else torch.device("cpu")
    params = pack_params(rows, numbers)
    return ops.sample(logits.to(device, copy=True), params.to(device)).tolist()


def kept(ops, logits, **params):
    """The tokens that are drawn by some number."""
    rows = [SamplingParams(**params)] * len(EVENLY)
    return set(draw(ops, logits.repeat(len(EVENLY), 1), rows, EVENLY))


@on_cpu
@pytest.mark.parametrize("typical_p", [0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_typical_p_keeps_what_transformers_keeps(ops, typical_p, temperature):
    scores = TypicalLogitsWarper(mass=typical_p)(None, (LOGITS / temperature).unsqueeze(0))
    expected = set(scores[0].isfinite().nonzero().flatten().tolist())
    assert kept(ops, LOGITS, typical_p=typical_p, temperature=temperature) == expected


@on_cpu
def test_typical_p_may_drop_the_likeliest_token(ops):
    logits = torch.log(torch.tensor([0.4, *[0.06] * 10]))
    assert 0 not in kept(ops, logits, typical_p=0.3)


@on_cpu
@pytest.mark.parametrize("n", [0.1, 0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_top_n_sigma_keeps_so_many_deviations_below_the_best(ops, n, temperature):
    """Whatever the temperature: both sides of the comparison are divided by it."""
    expected = LOGITS.max() - n * LOGITS.std(correction=0) <= LOGITS
    found = kept(ops, LOGITS, top_n_sigma=n, temperature=temperature)
    assert found <= set(expected.nonzero().flatten().tolist())
    if temperature > 1:  # flat enough to find all
        assert found == set(expected.nonzero().flatten().tolist())


@on_cpu
@pytest.mark.parametrize("banned", [-torch.inf, LEAST_LOGIT])
def test_tokens_that_must_not_be_drawn_are_no_part_of_the_deviation(ops, banned):
    logits = torch.cat([LOGITS, torch.full((30,), banned)])
    assert kept(ops, logits, top_n_sigma=1.0) == kept(ops, LOGITS, top_n_sigma=1.0)


@on_cpu
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.1, 0.2, 0.3, 0.6])
def test_xtc_drops_all_top_choices_but_the_least(ops, threshold):
    probs = torch.softmax(LOGITS, -1)
    choices = (probs >= threshold).nonzero().flatten().tolist()  # the likeliest first
    expected = set(range(len(LOGITS))) - set(choices[:-1])
    assert kept(ops, LOGITS, xtc_probability=1.0, xtc_threshold=threshold) == expected


@on_cpu
def test_xtc_judges_by_what_the_filters_before_it_left(ops):
    """Of two tokens each has a large share; of all ten none reaches 0.4."""
    assert kept(ops, LOGITS, xtc_probability=1.0, xtc_threshold=0.4) == set(range(10))
    assert kept(ops, LOGITS, top_k=2, xtc_probability=1.0, xtc_threshold=0.4) == {1}


@on_cpu
@pytest.mark.parametrize("probability", [0.0, 0.25, 0.75])
def test_xtc_is_in_force_as_often_as_asked(ops, probability):
    numbers = [uniform(seed, 0) for seed in range(2_000)]
    rows = [SamplingParams(xtc_probability=probability, xtc_threshold=0.05)] * len(numbers)
    logits = torch.tensor([3.0, 2.0]).repeat(len(numbers), 1)
    always_second = draw(ops, logits, rows, numbers).count(1) / len(numbers)
    expected = probability + (1 - probability) * 0.269  # 1 / (1 + e)
    assert always_second == pytest.approx(expected, abs=0.04)


MIXED = [
    SamplingParams(top_n_sigma=0.7, temperature=2.0),
    SamplingParams(typical_p=0.3),
    SamplingParams(typical_p=0.9, top_k=40, temperature=0.5),
    SamplingParams(xtc_probability=1.0, xtc_threshold=0.02),
    SamplingParams(top_n_sigma=2.0, typical_p=0.8, xtc_probability=0.5, min_p=0.01, top_p=0.95),
    SamplingParams(typical_p=0.5, temperature=0.0),
    SamplingParams(),
]


@everywhere
def test_a_row_draws_the_same_token_alone_and_in_any_batch(ops):
    logits = 2 * torch.randn(len(MIXED), 300, generator=torch.Generator().manual_seed(5))
    logits[:, ::7] = -torch.inf
    logits[:, ::11] = LEAST_LOGIT
    numbers = [uniform(i, 3) for i in range(len(MIXED))]
    together = draw(ops, logits, MIXED, numbers)
    assert together == [
        draw(ops, logits[i : i + 1], MIXED[i : i + 1], numbers[i : i + 1])[0]
        for i in range(len(MIXED))
    ]
    assert together == draw(REFERENCE, logits, MIXED, numbers)


def test_the_kernel_finds_the_band_where_a_row_takes_several_blocks():
    logits = 3 * torch.randn(3, 4_100, generator=torch.Generator().manual_seed(6))
    rows = [MIXED[4], SamplingParams(typical_p=0.6), SamplingParams(top_n_sigma=1.0)]
    numbers = [0.2, 0.6, 0.9]
    assert draw(TRITON, logits, rows, numbers) == draw(REFERENCE, logits, rows, numbers)


# Drawn before there were these filters.
DRAWN_BEFORE = [10, 40, 63, 47, 45, 63, 63, 22, 13, 31, 38, 49, 34, 15, 28, 45]


@everywhere
def test_other_requests_draw_what_they_drew_before(ops):
    logits = 2 * torch.randn(16, 64, generator=torch.Generator().manual_seed(11))
    rows = [
        SamplingParams(
            temperature=0.5 + i % 4 / 2,
            top_k=(0, 20)[i % 2],
            top_p=(1.0, 0.8)[i // 2 % 2],
            min_p=(0.0, 0.05)[i // 4 % 2],
        )
        for i in range(16)
    ]
    numbers = [uniform(i, 5) for i in range(16)]
    each = slice(None, None, 3) if ops is TRITON else slice(None)  # its interpreter is slow
    assert draw(ops, logits[each], rows[each], numbers[each]) == DRAWN_BEFORE[each]


def test_a_seeded_reply_is_the_same_alone_and_beside_others():
    model = ours(make_model("falcon_mamba"))
    sampling = {"temperature": 1.2, "xtc_probability": 0.5, "xtc_threshold": 0.01, "seed": 3}
    asked = {**sampling, "typical_p": 0.9, "top_n_sigma": 2.5, "max_new_tokens": 12}
    alone = generate(make_engine(model), [5, 6, 7], **asked)
    assert alone == generate(make_engine(model), [5, 6, 7], **asked)
    engine = make_engine(model)
    seqs = [make_sequence([5, 6, 7], **asked), make_sequence([9], temperature=1.0, seed=1)]
    for seq in seqs:
        engine.add(seq)
    finish(engine)
    assert seqs[0].output_token_ids == alone
