"""The held-out questions measure something only while the training never sees their wording."""

from __future__ import annotations

import json
import re

import pytest

from training import held_out
from training.generator import FOLDER as GENERATOR
from training.generator import conversations
from training.held_out import reading, situations
from training.tests.sources import SOURCES

WORDS = re.compile(r"[a-z0-9']+")


def plain(text: str) -> str:
    """Small letters, single spaces, no punctuation: what is left is the wording."""
    return " ".join(WORDS.findall(text.casefold()))


def templates() -> list[str]:
    """Every held-out wording, {slots} included."""
    recall, questions = held_out.load("recall"), held_out.load("questions")
    found = [text for kind in held_out.KINDS for text in recall[kind]["tell"] + recall[kind]["ask"]]
    found += [text for pair in recall["distractors"] + recall["other_facts"] for text in pair[:1]]
    for group in ("sums", "capitals", "continents", "stories", "unknown"):
        found += questions[group]
    return found + situation_templates() + reading_templates() + held_out.load("chatter")["lines"]


def situation_templates() -> list[str]:
    texts = held_out.load("situations")
    found = [text for kind in held_out.KINDS for text in texts["corrections"][kind]]
    found += [text for pair in texts["near"] for text in pair[:2]]
    found += [text for text, _ in texts["several"]]
    found += [
        text
        for part in ("small", "emoji")
        for kind in texts[part].values()
        for pair in kind
        for text in pair
    ]
    found += [text for _, text in texts["checks"]]
    found += [tell for tell, _ in texts["people"]]
    found += [question for _, questions in texts["people"] for question, _ in questions]
    for part in ("problems", "calendar", "opposites", "app", "json"):
        found += [text for text, _ in texts[part]]
    found += [text for tell, ask, _ in texts["lists"] for text in (tell, ask)]
    for part in ("nonsense", "foreign", "code", "refusals", "never_told"):
        found += texts[part]
    return [text for text in found if WORDS.search(text.casefold())]


def reading_templates() -> list[str]:
    texts = held_out.load("reading")
    found = [question for _, questions in texts["paragraphs"] for question, _ in questions]
    found += texts["missing"]
    found += [text for fact, question, _ in texts["facts"] for text in (fact, question)]
    sentences = [text for text, _ in texts["paragraphs"]]
    return found + sentences


def pattern(template: str) -> re.Pattern[str]:
    """Matches the wording with anything in its slots."""
    marked = plain(re.sub(r"\{\w+\}", " 0slot0 ", template))
    parts = [re.escape(part.strip()) for part in marked.split("0slot0")]
    return re.compile(r"\s*.+\s*".join(parts))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What users type in a few thousand conversations of the training; not what they paste."""
    made = conversations("overlap", 5_000) + conversations("real", 1_500, sources=SOURCES)
    typed = (m["content"] for messages in made for m in messages if m["role"] == "user")
    return [plain(text) for text in typed if len(text) < 400]


def test_no_held_out_wording_is_said_in_training(said):
    unique = sorted(set(said))
    joined = "\n".join(unique)
    for template in templates():
        found = re.search(rf"^(?:{pattern(template).pattern})$", joined, re.MULTILINE)
        assert found is None, f"{template!r} occurs in training: {found[0]!r}"


def test_no_held_out_wording_is_in_the_generators_files():
    files = [*GENERATOR.glob("*.json"), *GENERATOR.glob("*.py")]
    written = "\n".join(plain(path.read_text(encoding="utf-8")) for path in files)
    for template in templates():
        fixed = [part.strip() for part in re.split(r"\{\w+\}", template)]
        longest = plain(max(fixed, key=len))
        if len(longest.split()) >= 5:
            assert longest not in written, f"{template!r} is written in the generator"


def test_the_pattern_of_a_template_matches_what_it_stands_for():
    found = pattern("How is my {k} called again?")
    assert found.fullmatch(plain("how is my guinea pig called again"))
    assert not found.fullmatch(plain("How is my dog called?"))


def test_invented_values_are_not_among_the_words_of_the_generator():
    known = (GENERATOR / "words.json").read_text(encoding="utf-8")
    recall = held_out.load("recall")
    invented = [
        *(v for v in recall["name"]["values"]),
        *(v for v in recall["pet"]["values"][:3]),
    ]
    listed = {word for words in json.loads(known).values() for word in words}
    assert not listed & set(invented)


@pytest.mark.parametrize(
    "make",
    [
        situations.corrections,
        situations.near_misses,
        situations.several_facts,
        situations.small_letters,
        situations.with_emoji,
        situations.far_away,
        situations.checks,
        situations.two_people,
        situations.word_problems,
        situations.lists,
        situations.json_questions,
        situations.never_told,
        reading.paragraph_questions,
        reading.missing_questions,
    ],
)
def test_a_situation_asks_the_same_of_each_model_and_leaves_no_slot_open(make):
    asked = make()
    assert asked == make()
    for question in asked:
        assert question.messages[-1]["role"] == "user"
        said = " ".join(message["content"] for message in question.messages)
        assert not re.search(r"\{\w+\}", said), said


def test_what_was_put_right_is_expected_and_what_was_wrong_is_not():
    for question in situations.corrections():
        heard = [m["content"] for m in question.messages if m["role"] == "user"]
        assert question.expected not in heard[0]
        assert any(question.expected in text for text in heard[1:-1])


def test_a_document_has_the_length_and_its_sentence_the_depth_that_its_group_says():
    def words(text: str) -> int:
        return len(text.split())

    for question in reading.document_questions(words, lengths=(200, 600), per_cell=1):
        length, depth = re.findall(r"[\d.]+", question.group)
        text = question.messages[0]["content"]
        assert 0.8 * int(length) - 60 < words(text) < 1.3 * int(length)
        assert question.expected.casefold() in text.casefold()
        at = text.casefold().index(question.expected.casefold()) / len(text)
        assert abs(at - float(depth)) < 0.25


def test_a_long_conversation_has_sixty_turns_and_tells_only_at_its_beginning():
    for question in situations.far_away(2):
        assert len(question.messages) == 2 * (situations.FAR - 1) + 1
        assert question.expected in question.messages[0]["content"]


def test_each_model_gets_the_same_questions():
    assert held_out.recall_questions(3) == held_out.recall_questions(3)
    assert len(held_out.recall_questions()) == 4 * 3 * 25
    assert len(held_out.sum_questions()) == 231


def test_a_question_asks_for_what_was_told_so_many_turns_before():
    for question in held_out.recall_questions(2):
        distance = int(question.group.split()[1])
        assert len(question.messages) == 2 * distance + 1
        assert question.expected in question.messages[0]["content"]
        assert all(question.expected not in m["content"] for m in question.messages[1:])
