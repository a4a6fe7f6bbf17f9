"""What is computed and not measured: caches of attention models, intervals, plans, cells."""

import pytest

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.lab.answers import Answer, Plan, Tally, answers_in, as_record
from falcon_mamba_app.lab.attention import (
    GEMMA_2_9B,
    KNOWN_MODELS,
    LLAMA_3_1_8B,
    MISTRAL_7B_WINDOW,
    AttentionModel,
)
from falcon_mamba_app.lab.intervals import wilson

PLAN = Plan(lengths=(500, 1_000), depths=(0.0, 0.5, 1.0), per_cell=2, seed=7)


def test_a_token_takes_a_key_and_a_value_for_each_layer_and_head():
    assert LLAMA_3_1_8B.bytes_per_token == 2 * 32 * 8 * 128 * 2 == 131_072
    assert LLAMA_3_1_8B.cache_bytes(1_000_000) == 131_072_000_000


def test_a_layer_with_a_window_keeps_no_more_than_the_window():
    assert MISTRAL_7B_WINDOW.cache_bytes(4_096) == MISTRAL_7B_WINDOW.cache_bytes(1_000_000)
    half = GEMMA_2_9B.bytes_per_token / 2
    assert GEMMA_2_9B.cache_bytes(10_000) == half * 10_000 + half * 4_096


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_between_its_corners_the_cache_is_a_straight_line(model):
    corners = model.corners(100_000)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        for tokens in (x0, (x0 + x1) // 2, x1):
            line = y0 + (y1 - y0) * (tokens - x0) / (x1 - x0)
            assert line == pytest.approx(model.cache_bytes(tokens))


def test_a_window_longer_than_the_plot_is_no_corner():
    model = AttentionModel(
        name="m", layers=2, kv_heads=1, head_dim=1, windowed_layers=1, window=2_000_000
    )
    assert [tokens for tokens, _ in model.corners(1_000)] == [0, 1_000]


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_the_interval_is_wilsons(right, asked, low, high):
    assert wilson(right, asked) == pytest.approx((low, high), abs=1e-4)


def test_without_an_answer_nothing_is_known():
    assert wilson(0, 0) == (0.0, 1.0)


def test_texts_are_asked_about_in_rounds_over_all_lengths():
    assert list(PLAN.units()) == [(0, 500), (0, 1_000), (1, 500), (1, 1_000)]
    assert PLAN.num_questions == 12


def test_a_cell_counts_its_own_answers_once():
    tally = Tally(PLAN)
    for answer in (
        Answer(500, 0.5, 0, True),
        Answer(500, 0.5, 0, False),  # the same question again
        Answer(500, 0.5, 1, False),
        Answer(500, 0.5, 2, True),  # a third text, which the plan does not have
        Answer(700, 0.5, 0, True),
    ):
        tally.add(answer)
    cell = tally.cell(500, 0.5)
    assert (cell.asked, cell.right) == (2, 1)
    assert (cell.low, cell.high) == pytest.approx(wilson(1, 2), abs=1e-4)
    assert sum(cell.asked for cell in tally.cells()) == len(tally) == 2


def test_a_probe_comes_back_from_its_record_and_may_grow():
    answers = [Answer(500, 0.5, 0, True, "Oslo"), Answer(1_000, 1.0, 1, False, "I do not know")]
    record = as_record("m", Tally(PLAN, answers))
    larger = Plan(lengths=(500, 1_000, 2_000), depths=PLAN.depths, per_cell=9, seed=7)
    assert answers_in(record, "m", PLAN) == answers_in(record, "m", larger) == answers


@pytest.mark.parametrize(
    ("model", "plan", "named"),
    [
        ("other", PLAN, "model"),
        ("m", Plan(PLAN.lengths, PLAN.depths, 2, seed=8), "seed"),
        ("m", Plan(PLAN.lengths, (0.0, 1.0), 2, seed=7), "depths"),
    ],
)
def test_a_record_of_other_questions_is_refused(model, plan, named):
    record = as_record("m", Tally(PLAN))
    with pytest.raises(InvalidRequest, match=f"another {named}"):
        answers_in(record, model, plan)


@pytest.mark.parametrize(
    "record", [None, [], {}, {"kind": "recall-probe"}, {"kind": "recall-probe", "plan": 3}]
)
def test_what_is_no_record_is_refused(record):
    with pytest.raises(InvalidRequest):
        answers_in(record, "m", PLAN)


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": []},
        {"lengths": [100]},
        {"lengths": ["x"]},
        {"lengths": 1_000},
        {"depths": [1.5]},
        {"depths": [float("nan")]},
        {"depths": []},
        {"per_cell": 0},
        {"per_cell": 1.5},
        {"per_cell": True},
        {"seed": -1},
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_what_is_allowed(change):
    good = {"lengths": [1_000], "depths": [0.5], "per_cell": 1, "seed": 0}
    assert Plan.of(good).num_questions == 1
    with pytest.raises(InvalidRequest, match="allowed|at least"):
        Plan.of({**good, **change})
