"""What goes wrong with one sequence ends that sequence, and nobody beside it notices."""

from __future__ import annotations

import functools
import logging
import math

import pytest
import torch

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.events import Failed, Prefilled
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.ops import REFERENCE, Ops
from falcon_mamba_app.ops.cpu.ops import NUMBA
from tests.support import engine_fixtures
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    finish,
    generate,
    make_sequence,
    ours,
    random_prompt,
    reasons_of,
    tokens_of,
)

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


@pytest.fixture(scope="module")
def model(request):
    return poisoned_model(getattr(request, "param", REFERENCE))


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


@pytest.mark.parametrize("model", [REFERENCE, NUMBA], ids=lambda ops: ops.name, indirect=True)
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


CULPRIT = 201  # `random_prompt` has none of it


class Faulty:
    """The runner's passes over a prompt that holds CULPRIT raise, when all states have moved."""

    def __init__(self, engine: Engine, *, after_tokens: int) -> None:
        self._decode, self._prefill = engine._runner.decode, engine._runner.prefill
        self._after_tokens = after_tokens

    def decode(self, rows):
        step = self._decode(rows)
        self._refuse(rows)
        return step

    def prefill(self, chunks):
        scores = self._prefill(chunks)
        self._refuse([chunk.seq for chunk in chunks])
        return scores

    def _refuse(self, seqs):
        for seq in seqs:
            if CULPRIT in seq.prompt_token_ids and seq.num_computed_tokens >= self._after_tokens:
                raise TypeError("nobody foresaw this")


INNOCENT = [
    {"max_new_tokens": 12},
    {"max_new_tokens": 9, "temperature": 0.9, "seed": 4, "repetition_penalty": 1.4},
    {"max_new_tokens": 10, "temperature": 1.2, "seed": 5, "frequency_penalty": 0.7},
    {"max_new_tokens": 7, "score_prompt": 1, "logprobs": 2},
]


@pytest.mark.parametrize("after_tokens", [0, 5, 9])
def test_an_error_in_a_shared_step_ends_its_cause_and_all_others_answer_as_if_alone(
    model, make_engine, monkeypatch, after_tokens
):
    """Whose fault a step was, nobody knows: each goes on with steps to itself, from the start."""
    engine = make_engine(model, max_running=5, max_prefill_tokens=8)
    faulty = Faulty(engine, after_tokens=after_tokens)
    monkeypatch.setattr(engine._runner, "decode", faulty.decode)
    monkeypatch.setattr(engine._runner, "prefill", faulty.prefill)
    culprit = make_sequence([12, 13, 14, 15, 16, CULPRIT, 17], session_id="s", max_new_tokens=9)
    innocent = [
        (make_sequence(random_prompt(3 + 4 * i, seed=i), session_id=str(i), **options))
        for i, options in enumerate(INNOCENT)
    ]
    for seq in (innocent[0], innocent[1], culprit, *innocent[2:]):
        engine.add(seq)
    events = finish(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.seq_id == culprit.seq_id and "TypeError" in str(failed.error)
    for seq, options in zip(innocent, INNOCENT, strict=True):
        alone = generate(make_engine(model), seq.prompt_token_ids, **options)
        assert seq.output_token_ids == tokens_of(events, seq) == alone
        assert reasons_of(events, seq) == ["length"]
    scored = [e for e in events if isinstance(e, Prefilled) and e.seq_id == innocent[3].seq_id]
    predicted = [score.token_id for event in scored for score in event.scores]
    assert predicted == innocent[3].prompt_token_ids[1:]
    assert engine.pool.num_free == 5


def test_an_error_in_one_sequence_s_own_work_ends_that_sequence_alone(
    model, make_engine, monkeypatch
):
    engine = make_engine(model)
    save = engine._states.save

    def broken(self, seq):
        if seq.session_id == "cursed":
            raise ValueError("nobody foresaw this")
        save(seq)

    monkeypatch.setattr(type(engine._states), "save", broken)
    cursed = make_sequence(random_prompt(5), session_id="cursed")
    other = make_sequence(random_prompt(9), session_id="s")
    engine.add(cursed)
    engine.add(other)
    (failed,) = [event for event in finish(engine) if isinstance(event, Failed)]
    assert failed.seq_id == cursed.seq_id
    assert other.output_token_ids == generate(make_engine(model), random_prompt(9))
    assert engine.pool.num_free == 4
