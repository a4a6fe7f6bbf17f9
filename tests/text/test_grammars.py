"""Forms of replies: what is taken, what is refused with a sentence, and what a matcher allows."""

from __future__ import annotations

import json
import random
import re

import pytest

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, GrammarForm, JsonForm, RegexForm
from falcon_mamba_app.text.grammars import Grammars
from falcon_mamba_app.text.vocabulary import Vocabulary
from tests.support.checkpoints import make_tokenizer

TOKENIZER = make_tokenizer()
VOCABULARY = Vocabulary(TOKENIZER.backend_tokenizer)
VOCAB_SIZE, EOS = 480, 2  # the model's table has rows that the tokenizer does not use


@pytest.fixture(scope="module")
def grammars():
    return Grammars(VOCABULARY, vocab_size=VOCAB_SIZE, eos_token_ids={EOS, 0})


def json_form(schema, **options):
    return JsonForm(json.dumps(schema), **options)


def ids_in(mask: bytes) -> list[int]:
    return [i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1]


def written(matcher, seed=0, most=300) -> str:
    """A reply of random allowed tokens; an end of text is taken as soon as it is allowed."""
    rng, token_ids = random.Random(seed), []
    while len(token_ids) < most:
        allowed = ids_in(matcher.allowed())
        if set(allowed) & {EOS, 0}:
            return VOCABULARY.decode(token_ids)
        token_ids.append(rng.choice(allowed))
        matcher.advance(token_ids[-1])
    raise AssertionError(f"no end after {VOCABULARY.decode(token_ids)!r}")


def test_json_is_valid_on_one_line_and_with_one_spelling(grammars):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "ü"]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    texts = {written(grammars.matcher(json_form(schema)), seed) for seed in range(20)}
    assert texts == {f'{{"a": "{a}", "b": {b}}}' for a in "xü" for b in ("true", "false")}


def test_a_pattern_matches_the_whole_reply_with_or_without_anchors(grammars):
    for pattern in (r"[a-c]{2}-[0-9]{3}", r"^[a-c]{2}-[0-9]{3}$", r"^[a-c]{2}-[0-9]{3}"):
        text = written(grammars.matcher(RegexForm(pattern)))
        assert re.fullmatch(r"[a-c]{2}-[0-9]{3}", text)
    assert written(grammars.matcher(RegexForm(r"5\$"))) == "5$"
    assert written(grammars.matcher(RegexForm("a/b"))) == "a/b"
    assert written(grammars.matcher(RegexForm("^$"))) == ""
    assert written(grammars.matcher(RegexForm(r"\d{9}\w{9}"))).isascii()


def test_a_choice_is_one_of_the_texts_whatever_they_hold(grammars):
    choices = ('say "no"', "back\\slash", "/a*/", "zwei\nZeilen", "日本", "%json {}")
    found = {written(grammars.matcher(ChoiceForm(choices)), seed) for seed in range(60)}
    assert found == set(choices)


def test_a_grammar_is_followed(grammars):
    grammar = 'start: greeting " " name\ngreeting: "Hello" | "Bye"\nname: /[A-Z][a-z]{2}/\n'
    assert re.fullmatch(
        r"(Hello|Bye) [A-Z][a-z]{2}", written(grammars.matcher(GrammarForm(grammar)))
    )


def test_a_grammar_in_gbnf_is_followed_too_and_told_from_lark_by_its_rules(grammars):
    gbnf = 'root ::= greeting " you"\ngreeting ::= "Hello" | "Bye"\n'
    assert written(grammars.matcher(GrammarForm(gbnf))) in ("Hello you", "Bye you")
    assert written(grammars.matcher(GrammarForm('start: "a ::= b"'))) == "a ::= b"


def test_after_the_whole_form_only_ends_of_text_are_allowed(grammars):
    matcher = grammars.matcher(ChoiceForm(("no",)))
    while not set(allowed := ids_in(matcher.allowed())) & {EOS, 0}:
        matcher.advance(allowed[0])
    assert set(ids_in(matcher.allowed())) == {0, EOS}


def test_special_and_unused_tokens_are_never_allowed(grammars):
    allowed = set(ids_in(grammars.matcher(RegexForm("(?s:.*)")).allowed()))
    assert allowed & set(range(4)) <= {0, EOS}
    assert not [i for i in allowed if i >= len(TOKENIZER)]


def test_two_replies_of_one_form_do_not_disturb_each_other(grammars):
    form = RegexForm("a[bc]d")
    first, second = grammars.matcher(form), grammars.matcher(form)
    first.advance(ids_in(first.allowed())[0])
    assert first.allowed() != second.allowed()
    assert second.allowed() == grammars.matcher(form).allowed()


DEEP = {"type": "string"}
for _ in range(70):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
WIDE = {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(900)}}
REFUSED = {
    "an unknown type": (json_form({"type": "strnig"}), "strnig"),
    "a keyword that cannot be held to": (json_form({"not": {}}), "not"),
    "a reference to elsewhere": (json_form({"$ref": "http://127.0.0.1:1/x"}), "127.0.0.1"),
    "a reference to itself": (json_form({"$ref": "#"}), "no text has this form"),
    "a schema of nothing": (json_form({"type": "string", "enum": []}), "anyOf is empty"),
    "a deep schema": (json_form(DEEP), "64 deep"),
    "a wide schema": (json_form(WIDE), "2000"),
    "a long schema": (json_form({"title": "x" * 100_001}), "at most 100000"),
    "an open pattern": (RegexForm("(abc"), "unclosed group"),
    "a look-ahead": (RegexForm("(?=a)b"), "look-around"),
    "a reference back": (RegexForm(r"(a)\1"), "backreferences"),
    "a long pattern": (RegexForm("a" * 10_001), "at most 10000"),
    "no choices": (ChoiceForm(()), "1 to 1000"),
    "an empty choice": (ChoiceForm(("a", "")), "none of them empty"),
    "many choices": (ChoiceForm(tuple(map(str, range(1_001)))), "1001 choices"),
    "no grammar": (GrammarForm("%%"), "lexer error"),
    "a grammar without a start": (GrammarForm('begin: "a"'), "start"),
    "a grammar without end": (GrammarForm("start: a\na: a"), "no text has this form"),
}


@pytest.mark.parametrize("form,words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_held_to_is_refused_in_a_sentence(grammars, form, words):
    with pytest.raises(InvalidRequest, match=re.escape(words)) as refused:
        grammars.matcher(form)
    assert refused.value.param in ("response_format", "structured_outputs")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 450


def test_a_lenient_schema_ignores_what_cannot_be_held_to(grammars):
    schema = {"enum": ["a", "b"], "not": {"const": "a"}}
    assert written(grammars.matcher(json_form(schema, is_lenient=True))) in ('"a"', '"b"')


def test_without_an_end_of_text_no_form_is_taken():
    endless = Grammars(VOCABULARY, vocab_size=VOCAB_SIZE, eos_token_ids=())
    with pytest.raises(InvalidRequest, match="no token that ends a text"):
        endless.matcher(ChoiceForm(("a",)))
