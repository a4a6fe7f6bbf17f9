"""What the generator's situations promise: the newest value, honest near misses, copied answers."""

from __future__ import annotations

from random import Random

import pytest

from training.generator import (
    distraction,
    documents,
    interludes,
    introductions,
    paragraphs,
    revisions,
    structured,
)
from training.measures import NOT_IN_TEXT, admits_ignorance


def test_what_was_put_right_is_answered_as_it_is_now():
    for seed in range(60):
        turns, values = revisions.correct(Random(seed), distraction)
        assert values[-1] not in values[:-1] or len(values) > 2
        assert any(values[-1].casefold() in reply.casefold() for _, reply in turns)


def test_a_near_miss_is_not_known_and_what_was_told_is():
    unknown = told = 0
    for seed in range(60):
        turns, values = revisions.near_miss(Random(seed), distraction)
        unknown += any(admits_ignorance(reply) for _, reply in turns)
        told += any(value.casefold() in reply.casefold() for _, reply in turns for value in values)
    assert unknown > 55 and told > 55


SITUATIONS = (
    introductions.several,
    interludes.after_story,
    interludes.two_people,
    structured.a_list,
)


@pytest.mark.parametrize("make", SITUATIONS)
def test_what_the_last_reply_repeats_was_said_before(make):
    for seed in range(40):
        turns, values = make(Random(seed), distraction)
        *earlier, (asked, reply) = turns
        before = " ".join([*(said for turn in earlier for said in turn), asked]).casefold()
        for value in values:
            if value.casefold() in reply.casefold():
                assert value.casefold() in before


@pytest.mark.parametrize("make", [paragraphs.reading, documents.document])
def test_an_answer_stands_in_the_text_or_the_text_is_said_not_to_have_it(make):
    for seed in range(80):
        turns, answers = make(Random(seed))
        text = turns[0][0].casefold()
        assert all(answer.casefold() in text for answer in answers)
        for _, reply in turns[1:]:
            is_copied = any(answer.casefold() in reply.casefold() for answer in answers)
            is_whole = reply.rstrip(".").casefold() in text or "about" in reply
            assert is_copied or is_whole or NOT_IN_TEXT.search(reply.casefold()), reply


def test_facts_of_one_text_never_answer_the_same_question():
    for seed in range(40):
        rng = Random(seed)
        told = paragraphs.facts(rng, paragraphs.Scene(rng), 8)
        for i, fact in enumerate(told):
            for other in told[:i]:
                if fact.relation != other.relation:
                    mine, theirs = map(paragraphs.question_words, (fact.relation, other.relation))
                    assert not mine & theirs
