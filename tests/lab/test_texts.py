"""The texts that are read, and what is hidden in them."""

import itertools
import re

import pytest

from falcon_mamba_app.books.standing import Standing
from falcon_mamba_app.errors import InvalidRequest, PromptTooLong
from falcon_mamba_app.lab.answers import Plan
from falcon_mamba_app.lab.facts import PEOPLE, TOWNS, Fact, facts_of, filler_of
from falcon_mamba_app.lab.probe import _Text
from falcon_mamba_app.lab.texts import chronicle_ids, own_ids, refuse_too_long, sentences
from falcon_mamba_app.protocol import ModelInfo

DEPTHS = (0.0, 0.25, 0.5, 1.0)


class Words:
    """A tokenizer whose tokens are words; an id is the length of its word."""

    def encode(self, prompt):
        return [len(word) for word in prompt.split()]


def model(max_prompt_tokens=100_000):
    return ModelInfo(id="m", has_chat_template=False, max_prompt_tokens=max_prompt_tokens)


def count(sentence):
    return len(sentence.split())


def test_a_seed_tells_the_same_chronicle_and_another_seed_another():
    one, again, other = (list(itertools.islice(sentences(s), 50)) for s in ("1", "1", "2"))
    assert one == again != other
    assert len(set(one)) == 50


def test_the_chronicle_names_nobody_and_no_town():
    told = set(re.findall(r"\w+", " ".join(itertools.islice(sentences("1"), 2_000))))
    assert not told & {*PEOPLE, *TOWNS}


@pytest.mark.parametrize("num_tokens", [1, 999, 12_345])
def test_a_text_has_the_length_that_was_asked_for(num_tokens):
    assert len(chronicle_ids(Words(), model(), num_tokens, "1")) == num_tokens
    assert len(own_ids(Words(), model(), num_tokens, "some words of mine")) == num_tokens


def test_a_short_text_is_begun_again():
    assert list(own_ids(Words(), model(), 7, "a bb ccc")) == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(InvalidRequest, match="empty"):
        own_ids(Words(), model(), 10, text)


def test_a_text_beyond_the_servers_limit_is_refused_with_both_numbers():
    with pytest.raises(PromptTooLong, match=r"1,000,000 tokens .* 131,072 .*--max-prompt-tokens"):
        refuse_too_long(1_000_000, model(131_072))


@pytest.mark.parametrize("length", [200, 5_000])
def test_each_fact_stands_at_its_depth(length):
    filler = filler_of("7", length, DEPTHS, count)
    total = count(filler.text)
    assert length - 30 <= total <= length
    for depth, fact in zip(DEPTHS, filler.facts, strict=True):
        before, found, _ = filler.text.partition(fact.sentence)
        assert found and count(before) == pytest.approx(depth * total, abs=40)


def test_facts_are_of_different_people_in_different_towns():
    facts = facts_of("1", len(PEOPLE))
    assert len({fact.person for fact in facts}) == len({fact.town for fact in facts}) == len(facts)
    assert facts == facts_of("1", len(PEOPLE)) != facts_of("2", len(PEOPLE))


@pytest.mark.parametrize(
    ("reply", "is_right"),
    [
        ("Mira lives in Oslo.", True),
        ("Oslo", True),
        ("oslo", False),
        ("She lives in Oslo or in Rome.", False),
        ("Oslofjord", False),
        ("I do not know.", False),
        ("", False),
    ],
)
def test_an_answer_is_right_if_it_names_the_town_and_no_other(reply, is_right):
    assert Fact("Mira", "Oslo").is_told_by(reply) is is_right


def test_a_model_without_a_template_continues_the_answer():
    standing = Standing(Words(), model(), closing=None, num_markup=0)
    plan = Plan(lengths=(200,), depths=DEPTHS, per_cell=1, seed=1)
    text = _Text.make(standing, plan, 0, 200)
    prompt = text.prompt(0.5)
    assert list(prompt[: len(text.ids)]) == list(text.ids)
    asked = "Question: Where does {0} live? Answer: {0} lives in".format(text.facts[0.5].person)
    assert list(prompt[len(text.ids) :]) == [len(word) for word in asked.split()]
