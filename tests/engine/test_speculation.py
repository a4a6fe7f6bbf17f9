"""Tokens that are drafted and verified together: the very replies and states of single steps."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.runner.prompt_lookup import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_INDEXED,
    PromptLookup,
)
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.in_8bit import put_in_8bit
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.sampling import NO_TOKEN
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    EOS,
    finish,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
    tokens_of,
)

NUM_TOKENS = 30
WISHES = (
    {},
    {"temperature": 0.9, "seed": 5},
    {"temperature": 1.3, "top_p": 0.9, "top_k": 40, "seed": 6, "xtc_probability": 0.5},
    {"temperature": 0.8, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "seed": 7},
    {"temperature": 0.8, "seed": 8, "logprobs": 2, "logit_bias": ((17, 3.0),)},
)


class Drafts(PromptLookup):
    """Drafts what `of` says for the reply's length so far."""

    def __init__(self, of: Callable[[int], list[int]]) -> None:
        super().__init__(3)
        self._of = of

    def draft(self, seq: Sequence) -> list[int]:
        super().draft(seq)
        num_more = seq.sampling.max_new_tokens - len(seq.output_token_ids) - 1
        return self._of(len(seq.output_token_ids))[: min(3, max(0, num_more))]


def prepared(family: str, kind: str):
    model = ours(make_model(family), NUMBA)
    if kind == "int8":
        put_in_8bit(model, dtype=torch.float32)
        return model
    model = model.to(getattr(torch, kind))
    model.prepare()
    return model


@pytest.fixture(scope="module")
def model():
    return prepared("falcon_mamba", "float32")


def drafting(model, of: Callable[[int], list[int]]) -> Engine:
    engine = make_engine(model, speculates=True)
    engine.draft_by(Drafts(of))
    return engine


def answer(engine: Engine, wish: dict) -> tuple[Sequence, list, torch.Tensor]:
    """The sequence, its events, and the state that it leaves."""
    options = {"max_new_tokens": NUM_TOKENS, "session_id": "a", **wish}
    seq = make_sequence(random_prompt(9), **options)
    engine.add(seq)
    events = finish(engine)
    state = engine.snapshots.longest_prefix("a", seq.packed_computed).state
    return seq, events, torch.cat([state.conv.flatten().float(), state.ssm.flatten()])


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("family", ["falcon_mamba", "mamba"])
def test_replies_and_states_are_those_of_single_steps_whatever_is_drafted(family, kind):
    model = prepared(family, kind)
    plain, rng = make_engine(model), random.Random(3)
    for wish in WISHES:
        alone, _, state = answer(plain, wish)
        plain.forget("a")
        right = alone.output_token_ids
        mixed = [token if rng.random() < 0.7 else token + 1 for token in right]
        for told in (right, [token + 1 for token in right], mixed):
            seq, _, other = answer(drafting(model, lambda n, told=told: told[n:]), wish)
            assert seq.output_token_ids == right
            assert torch.equal(other, state)


def test_accepted_tokens_save_steps_and_are_counted(model):
    right = answer(make_engine(model), {})[0].output_token_ids
    engine, num_steps = drafting(model, lambda n: right[n:]), 0
    seq = make_sequence(random_prompt(9), max_new_tokens=NUM_TOKENS)
    engine.add(seq)
    events = []
    while engine.has_work:
        events += engine.step()
        num_steps += 1
    assert tokens_of(events, seq) == right
    assert num_steps <= NUM_TOKENS / 4 + 2
    tokens = [event.token for event in events if hasattr(event, "token")]
    assert sum(token.num_drafted for token in tokens) == sum(t.was_drafted for t in tokens) > 20


def test_a_reply_ends_inside_a_draft_where_it_would_have_ended(model):
    free = answer(make_engine(model), {})[0].output_token_ids
    biased = {"ignore_eos": False, "logit_bias": ((EOS, 40.0),), "min_tokens": 6}
    ended, _, state = answer(make_engine(model), biased)
    assert ended.output_token_ids[-1] == EOS and len(ended.output_token_ids) == 7
    told = [*ended.output_token_ids, *free]
    seq, _, other = answer(drafting(model, lambda n: told[n:]), biased)
    assert seq.output_token_ids == ended.output_token_ids
    assert torch.equal(other, state)


def test_logits_without_numbers_fail_the_sequence_and_save_nothing(model, monkeypatch):
    engine = drafting(model, lambda n: [3, 4, 5])
    sample = NUMBA.sample

    def broken(logits, params):
        return torch.full_like(sample(logits, params), NO_TOKEN)

    monkeypatch.setattr(type(NUMBA), "sample", staticmethod(broken))
    seq = make_sequence(random_prompt(9), session_id="a")
    engine.add(seq)
    assert [type(event).__name__ for event in finish(engine)][-1] == "Failed"
    assert engine.snapshots.longest_prefix("a", seq.packed_prompt) is None
    assert engine.pool.num_free == 4


def test_a_thousand_requests_that_repeat_answer_as_without_drafts(model):
    """They join and leave, so that rows are alone and not in turn."""
    rng = random.Random(11)
    wishes = []
    for i in range(8):
        beat = random_prompt(rng.randint(2, 5), seed=i)
        options = rng.choice(WISHES[:4])
        wishes.append((beat * 6, {"max_new_tokens": 8, **options}))
    expected = []
    for prompt, options in wishes:
        plain, alone = make_engine(model), make_sequence(prompt, **options)
        plain.add(alone)
        finish(plain)
        expected.append(alone.output_token_ids)
    engine, added, num_drafted = make_engine(model, speculates=True), [], 0
    while len(added) < 1_000 or engine.has_work:
        if len(added) < 1_000 and rng.random() < 0.15:
            which = rng.randrange(len(wishes))
            prompt, options = wishes[which]
            added.append((which, make_sequence(prompt, session_id=rng.choice("ab"), **options)))
            engine.add(added[-1][1])
        for event in engine.step():
            num_drafted += getattr(event, "token", None) is not None and event.token.was_drafted
    assert all(seq.output_token_ids == expected[which] for which, seq in added)
    assert num_drafted > 200


# ---- drafts ----


def known(*token_ids: int, max_new_tokens: int = 100) -> Sequence:
    return make_sequence(list(token_ids), max_new_tokens=max_new_tokens)


def test_what_followed_the_same_tokens_last_is_drafted():
    lookup = PromptLookup(3)
    assert lookup.draft(known(1, 2, 3, 9, 8, 1, 2, 3, 7, 6, 5, 4, 1, 2, 3)) == [7, 6, 5]
    assert lookup.draft(known(3, 7, 6, 5, 3)) == [7, 6, 5]
    assert lookup.draft(known(1, 2, 3, 4)) == []
    assert lookup.draft(known(1)) == []


def test_a_place_with_more_tokens_alike_goes_before_a_newer_one():
    assert PromptLookup(3).draft(known(1, 2, 3, 7, 8, 9, 0, 2, 3, 4, 5, 6, 1, 2, 3)) == [7, 8, 9]


def test_drafts_with_few_tokens_alike_pause_alone():
    lookup, seq = PromptLookup(3), known(1, 2, 3, 4, 9, 3, 6, 1, 2, 3)
    for _ in range(2):
        assert lookup.draft(seq) == [4, 9, 3]
        lookup.learn(seq, 3)
    seq.output_token_ids += [9]  # after other tokens than before
    for _ in range(2):
        assert lookup.draft(seq) == [3, 6, 1]
        lookup.learn(seq, 0)
    assert lookup.draft(seq) == []
    seq.output_token_ids += [1, 2, 3]
    assert lookup.draft(seq)


def test_a_repetition_is_drafted_up_to_what_is_known():
    assert PromptLookup(3).draft(known(5, 5, 5, 5, 5)) == [5]


def test_tokens_of_the_reply_are_learned_as_they_come():
    lookup, seq = PromptLookup(3), known(1, 2, 3, 4, 5, 6, 9)
    assert lookup.draft(seq) == []
    seq.output_token_ids += [1, 2, 3]
    assert lookup.draft(seq) == [4, 5, 6]
    seq.output_token_ids += [4, 5, 6, 9]
    assert lookup.draft(seq) == [1, 2, 3]


def test_no_draft_goes_beyond_the_reply_s_limit():
    prompt = (1, 2, 3, 4, 5, 1, 2, 3)
    assert PromptLookup(3).draft(known(*prompt, max_new_tokens=2)) == [4]
    assert PromptLookup(3).draft(known(*prompt, max_new_tokens=1)) == []


def test_drafts_that_fail_pause_for_longer_each_time():
    lookup, seq = PromptLookup(3), known(*[1, 2, 3, 4] * 3, max_new_tokens=1_000_000)
    pauses, waited = [], 0
    while len(pauses) < 12:
        if lookup.draft(seq):
            pauses.append(waited)
            waited = 0
            lookup.learn(seq, 0)
        waited += 1
        seq.output_token_ids.append(len(seq.output_token_ids) % 4 + 1)
    longer = [pause for pause in pauses if pause > 1]
    assert longer[0] == FIRST_PAUSE and longer == sorted(longer) and longer[-1] == LONGEST_PAUSE
    for _ in range(10):
        lookup.learn(seq, 3)
    seq.output_token_ids += [1, 2, 3, 4] * LONGEST_PAUSE
    assert lookup.draft(seq)
    lookup.learn(seq, 0)
    seq.output_token_ids += lookup.draft(seq) or [1]
    assert lookup.draft(seq)  # one failure after ten successes is forgiven


def test_only_the_newest_tokens_of_a_long_prompt_are_indexed():
    lookup = PromptLookup(3)
    seq = known(*range(1_000_000, 1_000_000 + 3 * MAX_INDEXED))
    lookup.draft(seq)
    past = lookup._pasts[seq.seq_id]
    assert len(past.tokens) == MAX_INDEXED and len(past.places_after) < MAX_INDEXED
    lookup.drop(seq)
    assert lookup._pasts == {}
