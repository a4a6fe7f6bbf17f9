"""Requests of one owner begin from what earlier ones have read, with nothing said about it."""

from __future__ import annotations

import pytest

from falcon_mamba_app.engine.events import Admitted, Prefilled
from falcon_mamba_app.engine.sequence import Sequence
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    finish,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
    tokens_of,
)

SYSTEM = random_prompt(60, seed=1)


@pytest.fixture(scope="module")
def model():
    return ours(make_model("falcon_mamba"))


@pytest.fixture
def engine(model):
    return make_engine(model)


def question(number: int, *, owner: str = "anna", points: tuple[int, ...] = ()) -> Sequence:
    prompt = SYSTEM + random_prompt(20, seed=100 + number)
    return make_sequence(prompt, reuse_id=owner, save_points=points)


def read(engine, seq: Sequence) -> tuple[int, list[int]]:
    """How many tokens were reused, and the reply."""
    engine.add(seq)
    events = finish(engine)
    (admitted,) = [e for e in events if isinstance(e, Admitted)]
    num_read = sum(e.num_tokens for e in events if isinstance(e, Prefilled))
    assert num_read == len(seq.prompt_token_ids) - 1 - admitted.num_reused_tokens
    return admitted.num_reused_tokens, tokens_of(events, seq)


def test_a_system_prompt_before_different_questions_is_read_once(engine):
    reused = [read(engine, question(n, points=(len(SYSTEM),)))[0] for n in range(5)]
    assert reused == [0] + [len(SYSTEM)] * 4


def test_a_state_is_kept_where_two_prompts_fork(engine):
    """Nobody said where: the second request reads the beginning once more, and leaves it."""
    reused = [read(engine, question(n))[0] for n in range(4)]
    assert reused == [0, 0, len(SYSTEM), len(SYSTEM)]


def test_a_longer_prompt_begins_where_a_reply_ended(engine):
    first = question(0)
    _, reply = read(engine, first)
    second = make_sequence([*first.prompt_token_ids, *reply, 5, 6], reuse_id="anna")
    assert read(engine, second)[0] == len(first.prompt_token_ids) + len(reply) - 1


def test_what_was_reused_changes_no_reply(model, engine):
    for number in range(4):
        _, warm = read(engine, question(number, points=(len(SYSTEM),)))
        _, cold = read(make_engine(model), question(number))
        assert warm == cold


def test_nothing_crosses_owners(engine):
    read(engine, question(0, points=(len(SYSTEM),)))
    assert read(engine, question(0, owner="tom"))[0] == 0
    assert read(engine, question(1, owner="tom"))[0] == 0


def test_a_request_that_shares_nothing_leaves_nothing(engine):
    private = make_sequence(question(0).prompt_token_ids)
    engine.add(private)
    finish(engine)
    assert len(engine.snapshots) == 0
    assert read(engine, question(0))[0] == 0


def test_a_session_begins_from_its_owners_states_and_keeps_its_own(engine):
    read(engine, question(0, points=(len(SYSTEM),)))
    seq = question(1)
    seq.session_id = "a session"
    assert read(engine, seq)[0] == len(SYSTEM)
    assert engine.snapshots.newest("a session") is not None
    engine.snapshots.forget("a session")
    assert read(engine, question(1))[0] == len(SYSTEM)


def test_prompts_with_little_in_common_are_not_cut_into_pieces(engine):
    for number in range(2):
        seq = make_sequence(SYSTEM[:10] + random_prompt(30, seed=number), reuse_id="anna")
        read(engine, seq)
        assert seq.save_points == ()


def test_a_point_that_many_share_is_kept_once(engine):
    for number in range(6):
        read(engine, question(number, points=(len(SYSTEM),)))
    lengths = [key for _, key in engine.snapshots._order]
    assert len(lengths) == len(set(lengths))
