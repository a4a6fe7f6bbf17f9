"""What a request may change about its logits, and that nobody else notices."""

from __future__ import annotations

import functools

import pytest

from tests.support import engine_fixtures
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import EOS, finish, generate, make_sequence, ours, random_prompt

PROMPT = random_prompt(12)


@pytest.fixture(scope="module")
def model():
    return ours(make_model("falcon_mamba"))


@pytest.fixture(params=[False, True], ids=["in step", "looking ahead"])
def engine(request, model):
    return functools.partial(engine_fixtures.make_engine, look_ahead=request.param)(model)


def test_a_forbidden_token_is_never_chosen_and_a_wanted_one_always(engine):
    plain = generate(engine, PROMPT)
    forbidden = generate(engine, PROMPT, logit_bias=((plain[0], -100.0),))
    assert plain[0] not in forbidden
    assert generate(engine, PROMPT, logit_bias=((33, 100.0),)) == [33] * len(plain)


def test_no_end_is_chosen_before_the_least_length(engine):
    bias = ((EOS, 90.0),)  # the end would be the first thing that is said
    options = {"logit_bias": bias, "ignore_eos": False, "max_new_tokens": 9}
    assert generate(engine, PROMPT, **options) == [EOS]
    reply = generate(engine, PROMPT, min_tokens=5, **options)
    assert len(reply) == 6 and reply.index(EOS) == 5


def test_stop_tokens_wait_for_the_least_length_too(engine):
    wanted = ((44, 90.0),)
    assert generate(engine, PROMPT, logit_bias=wanted)[0] == 44
    reply = generate(engine, PROMPT, logit_bias=wanted, stop_token_ids=(44,), min_tokens=3)
    assert 44 not in reply[:3] and reply[3] == 44


def test_changes_are_of_one_row_in_any_batch(engine):
    alone = [generate(engine, PROMPT), generate(engine, PROMPT, logit_bias=((33, 100.0),))]
    rows = [make_sequence(PROMPT), make_sequence(PROMPT, logit_bias=((33, 100.0),))]
    for seq in rows:
        engine.add(seq)
    finish(engine)
    assert [seq.output_token_ids for seq in rows] == alone
