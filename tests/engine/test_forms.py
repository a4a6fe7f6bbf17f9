"""Replies that are held to a form: valid whatever the model says, and nobody else notices."""

from __future__ import annotations

import functools
import itertools
import json

import pytest

from falcon_mamba_app.engine.events import Failed
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, JsonForm, RegexForm
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support import engine_fixtures
from tests.support.checkpoints import make_model, make_tokenizer
from tests.support.engine_fixtures import (
    EOS,
    finish,
    generate,
    make_sequence,
    ours,
    random_prompt,
    reasons_of,
)

PROMPT = random_prompt(12)
VOCABULARY = Vocabulary(make_tokenizer().backend_tokenizer)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORMS = (
    JsonForm(json.dumps(SCHEMA)),
    RegexForm("[a-f]{3,9}-[0-9]{1,6}!"),
    ChoiceForm(("yes", "no")),
)
WISHES = (
    {"temperature": 0.0},
    {"temperature": 1.5, "seed": 3},
    {"temperature": 1.0, "seed": 4, "top_p": 0.8, "top_k": 30, "repetition_penalty": 1.3},
    {"temperature": 1.0, "seed": 5, "frequency_penalty": 0.5, "logprobs": 2},
    {"temperature": 0.9, "seed": 6, "typical_p": 0.9, "top_n_sigma": 2.0, "min_tokens": 30},
)
MOST = {"ignore_eos": False, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def model():
    return ours(make_model("falcon_mamba"))


@pytest.fixture(scope="module")
def grammars(model):
    return Grammars(VOCABULARY, vocab_size=model.config.vocab_size, eos_token_ids={EOS})


@pytest.fixture(params=[False, True], ids=["in step", "looking ahead"])
def make_engine(request, model):
    return functools.partial(engine_fixtures.make_engine, model, look_ahead=request.param)


def limited(grammars, form, **options):
    seq = make_sequence(options.pop("prompt", PROMPT), **{**MOST, **options})
    seq.matcher = grammars.matcher(form)
    return seq


def reply(engine, seq) -> list[int]:
    engine.add(seq)
    finish(engine)
    return seq.output_token_ids


def text_of(token_ids: list[int]) -> str:
    return VOCABULARY.decode(token_ids)


def is_held(form, text: str) -> bool:
    match form:
        case JsonForm():
            value = json.loads(text)
            return list(value) == ["name", "age", "tags"] and 0 <= value["age"] <= 150
        case RegexForm():
            return text[-1] == "!" and text[:-1].partition("-")[2].isdigit()
        case ChoiceForm(choices=choices):
            return text in choices


def test_a_reply_has_its_form_and_ends_with_it(grammars, make_engine):
    engine = make_engine()
    for form, wish in itertools.product(FORMS, WISHES):
        seq = limited(grammars, form, **wish)
        engine.add(seq)
        events = finish(engine)
        assert reasons_of(events, seq) == ["stop"]
        assert seq.output_token_ids[-1] == EOS
        assert is_held(form, text_of(seq.output_token_ids)), text_of(seq.output_token_ids)


def test_replies_are_the_same_alone_in_any_batch_and_with_or_without_look_ahead(
    grammars, model, make_engine
):
    """Forms come and go in the batch, beside replies without one and prompts still being read."""
    cases = [*itertools.product(FORMS, WISHES[1:4]), (None, WISHES[1]), (None, WISHES[3])]

    def make(form, wish, seed):
        prompt = random_prompt(3 + 5 * seed, seed=seed)
        if form is None:
            return make_sequence(prompt, **{**MOST, "max_new_tokens": 30, **wish})
        return limited(grammars, form, prompt=prompt, **wish)

    alone = [
        reply(engine_fixtures.make_engine(model, look_ahead=False), make(form, wish, i))
        for i, (form, wish) in enumerate(cases)
    ]
    engine, together = make_engine(max_prefill_tokens=8), []
    for i, (form, wish) in enumerate(cases):
        together.append(make(form, wish, i))
        engine.add(together[-1])
        engine.step()
    finish(engine)
    assert [seq.output_token_ids for seq in together] == alone
    assert engine.pool.num_free == 4 and not engine._runner._penalties._counts


def test_a_state_after_a_form_is_what_a_cold_start_reads(grammars, make_engine):
    """No state runs ahead of what was said, though the next step began before it was known."""
    engine, cold = make_engine(), make_engine()
    first = limited(grammars, FORMS[0], temperature=1.0, seed=8, session_id="s")
    said = reply(engine, first)
    turn = [*PROMPT, *said, *random_prompt(5, seed=9)]
    assert generate(engine, turn, session_id="s") == generate(cold, turn)
    assert engine.snapshots.newest("s").num_tokens > len(PROMPT) + len(said)


def test_a_limit_in_the_middle_of_a_form_ends_it_there(grammars, make_engine):
    engine = make_engine()
    whole = reply(engine, limited(grammars, FORMS[0], temperature=1.0, seed=3))
    seq = limited(grammars, FORMS[0], temperature=1.0, seed=3, max_new_tokens=5)
    engine.add(seq)
    assert reasons_of(finish(engine), seq) == ["length"]
    assert seq.output_token_ids == whole[:5]


def test_a_cancelled_reply_frees_its_slot_and_its_session_goes_on(grammars, make_engine):
    engine = make_engine()
    for num_steps in range(1, 9):
        seq = limited(grammars, FORMS[0], temperature=1.0, seed=3, session_id="s")
        engine.add(seq)
        for _ in range(num_steps):
            engine.step()
        engine.abort(seq.seq_id)
        finish(engine)
        assert engine.pool.num_free == 4
    again = limited(grammars, FORMS[0], temperature=1.0, seed=3, session_id="s")
    fresh = limited(grammars, FORMS[0], temperature=1.0, seed=3)
    assert reply(engine, again) == reply(make_engine(), fresh)


def test_a_parked_reply_goes_on_with_its_form(grammars, make_engine):
    engine = make_engine(max_running=2)
    greedy_owner = [
        limited(grammars, FORMS[0], temperature=1.0, seed=i, prompt=random_prompt(4, seed=i))
        for i in range(2)
    ]
    alone = []
    for i in range(2):
        seq = limited(grammars, FORMS[0], temperature=1.0, seed=i, prompt=random_prompt(4, seed=i))
        alone.append(reply(make_engine(), seq))
    for seq in greedy_owner:
        seq.owner = "a"
        engine.add(seq)
    for _ in range(4):
        engine.step()
    newcomer = limited(grammars, FORMS[2], temperature=0.0)
    newcomer.owner = "b"
    engine.add(newcomer)
    engine.step()
    engine.step()
    assert any(seq.slot is None for seq in greedy_owner), "nobody was parked"
    finish(engine)
    assert [seq.output_token_ids for seq in greedy_owner] == alone


class Broken:
    """A matcher that finds its form too complicated after some tokens."""

    form = FORMS[1]

    def __init__(self, inner, num_masks):
        self._inner, self._num_masks = inner, num_masks

    def allowed(self):
        self._num_masks -= 1
        if self._num_masks < 0:
            raise InvalidRequest("too complicated", param="structured_outputs")
        return self._inner.allowed()

    def advance(self, token_id):
        self._inner.advance(token_id)


@pytest.mark.parametrize("num_masks", [0, 3])
def test_a_form_that_fails_ends_its_own_reply_alone(grammars, make_engine, num_masks):
    engine = make_engine()
    others = [
        limited(grammars, FORMS[1], temperature=1.0, seed=2),
        make_sequence(PROMPT, temperature=1.0, seed=2, repetition_penalty=1.2),
    ]
    alone = [reply(make_engine(), limited(grammars, FORMS[1], temperature=1.0, seed=2))]
    alone.append(generate(make_engine(), PROMPT, temperature=1.0, seed=2, repetition_penalty=1.2))
    seq = limited(grammars, FORMS[1], temperature=1.0, seed=1, repetition_penalty=1.2)
    seq.matcher = Broken(seq.matcher, num_masks)
    for each in (others[0], seq, others[1]):
        engine.add(each)
    failures = [e for e in finish(engine) if isinstance(e, Failed)]
    assert [(f.seq_id, str(f.error)) for f in failures] == [(seq.seq_id, "too complicated")]
    assert [other.output_token_ids for other in others] == alone
    assert engine.pool.num_free == 4 and not engine._runner._penalties._counts


def test_after_a_failed_choice_every_reply_is_as_if_alone(grammars, make_engine, monkeypatch):
    engine = make_engine()
    seqs = [limited(grammars, form, temperature=1.0, seed=7) for form in FORMS]
    alone = [reply(make_engine(), limited(grammars, f, temperature=1.0, seed=7)) for f in FORMS]
    for seq in seqs:
        engine.add(seq)
    for _ in range(3):
        engine.step()
    choose = engine._runner.choose

    def fail_once(*args):
        monkeypatch.setattr(engine._runner, "choose", choose)
        raise TypeError("nobody foresaw this")

    monkeypatch.setattr(engine._runner, "choose", fail_once)
    finish(engine)
    assert [seq.output_token_ids for seq in seqs] == alone
    assert engine.pool.num_free == 4
