"""The held-out questions measure something only while the training never sees their wording."""

from __future__ import annotations

import json
import re

import pytest

from training import held_out
from training.generator import FOLDER as GENERATOR
from training.generator import conversations

WORDS = re.compile(r"[a-z0-9']+")
PLACE_OF_A_VALUE = "\0"


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
    return found


def pattern(template: str) -> re.Pattern[str]:
    """Matches the wording with anything in its slots."""
    marked = plain(re.sub(r"\{\w+\}", " 0slot0 ", template))
    parts = [re.escape(part.strip()) for part in marked.split("0slot0")]
    return re.compile(r"\s*.+\s*".join(parts))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What users say in a few thousand conversations of the training."""
    made = conversations("overlap", 20_000)
    return [plain(m["content"]) for messages in made for m in messages if m["role"] == "user"]


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
