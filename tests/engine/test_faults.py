"""What goes wrong with one sequence ends that sequence, and nobody beside it notices."""

from __future__ import annotations

import functools
import logging
import math

import pytest
import torch

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Failed
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.recurrence import REFERENCE
from tests.support import engine_fixtures
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import finish, generate, make_sequence, ours, random_prompt

POISON = 205  # a token whose embedding is no number; `random_prompt` has none of it
POISONED = [12, 13, POISON, 14, 15]


def poisoned_model(ops: Ops):
    theirs = make_model("falcon_mamba")
    with torch.no_grad():
        head = theirs.get_input_embeddings().weight.clone()
        theirs.get_input_embeddings().weight[POISON] = math.nan
    model = ours(theirs, ops)
    model.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    return model


@pytest.fixture(scope="module", params=[REFERENCE, NUMBA], ids=lambda ops: ops.name)
def model(request):
    return poisoned_model(request.param)


@pytest.fixture(params=[False, True], ids=["in step", "looking ahead"])
def make_engine(request):
    return functools.partial(engine_fixtures.make_engine, look_ahead=request.param)


def failure_of(engine: Engine, *others: Sequence, prompt=POISONED, **options) -> str:
    """How a poisoned prompt ends, read between those of others."""
    seq = make_sequence(prompt, **options)
    for each in (*others[:1], seq, *others[1:]):
        engine.add(each)
    (failed,) = [event for event in finish(engine) if isinstance(event, Failed)]
    assert failed.seq_id == seq.seq_id and not engine.has_work
    return str(failed.error)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logprobs": 3},
        {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.3},
        {"frequency_penalty": 1.0, "logprobs": 0},
        {"score_prompt": 2},
        {"prompt": [POISON]},
        {"prompt": [12, POISON]},
    ],
    ids=str,
)
def test_a_reply_whose_logits_are_no_numbers_ends_and_those_beside_it_go_on(
    model, make_engine, options
):
    engine = make_engine(model)
    prompts = random_prompt(9), random_prompt(20, seed=3)
    others = [make_sequence(prompt, max_new_tokens=12, logprobs=1) for prompt in prompts]
    assert "the model computed no number" in failure_of(engine, *others, **options)
    for prompt, other in zip(prompts, others, strict=True):
        assert other.output_token_ids == generate(make_engine(model), prompt, max_new_tokens=12)


def test_no_state_of_the_session_is_kept_and_one_line_is_logged(model, make_engine, caplog):
    engine = make_engine(model)
    generate(engine, [12, 13], session_id="s")
    generate(engine, [12, 13], session_id="somebody else's")
    with caplog.at_level(logging.WARNING):
        failure_of(engine, session_id="s")
    assert engine.snapshots.newest("s") is None
    assert engine.snapshots.newest("somebody else's") is not None
    assert [record.message for record in caplog.records] == [
        "the model's logits are not finite after 4 tokens; one reply given up"
    ]


def test_the_slot_of_a_reply_without_numbers_is_as_new_for_the_next(model, make_engine):
    engine = make_engine(model, max_running=1)
    prompt = random_prompt(9)
    seq = make_sequence(POISONED)
    engine.add(seq)
    finish(engine)
    assert generate(engine, prompt) == generate(make_engine(model), prompt)
