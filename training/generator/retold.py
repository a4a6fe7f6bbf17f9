"""Questions that people asked about stories, each time with other names and things in them.

The stories are few and would soon be known by heart. With new heroes, animals and objects in text,
question and answer alike, what is left to learn is how people ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from training.generator import excerpts
from training.generator.excerpts import Excerpt, Text
from training.generator.exchanged import exchange, with_others
from training.generator.grammar import capital, framed, table
from training.generator.handed import Asked, dialogue
from training.generator.revisions import Copying


@dataclass(frozen=True, slots=True)
class HumanQuestion:
    text: str
    question: str
    answer: str


AskedByPeople = Callable[[Random], HumanQuestion]


def reading(rng: Random, asked_by_people: AskedByPeople, excerpt: Excerpt) -> Copying:
    """One of their questions about a text, with others that are cut out of it; at times the text
    stands within another.
    """
    found = asked_by_people(rng)
    changed = exchange(rng, found.text) if rng.random() < 0.9 else {}
    text, question, answer = (
        with_others(each, changed) for each in (found.text, found.question, found.answer)
    )
    asked = [as_asked(rng, text, question, answer)]
    if rng.random() < 0.35:
        asked += excerpts.questions(rng, Text.of(text), rng.choice((1, 2)), excerpt)
        rng.shuffle(asked)
    if rng.random() < 0.2:
        before, after = excerpt(rng, rng.choice((40, 100, 300))), excerpt(rng, 60)
        text = "\n\n".join((before, text, after))
    return dialogue(rng, text, asked)


def as_asked(rng: Random, text: str, question: str, answer: str) -> Asked:
    """In every third case the answer is the sentence that has it."""
    told = answer.rstrip(".")
    if told.casefold() not in text.casefold():
        return Asked(question, answer, "")
    there = [each for each in Text.of(text).sentences if told.casefold() in each.casefold()]
    if len(there) == 1 and len(there[0].split()) < 40 and rng.random() < 0.35:
        answer = framed(rng, table("excerpts")["quoted"], s=capital(there[0]))
    return Asked(question, answer, told if len(told.split()) < 7 else "")


def parse(messages: list[tuple[str, str]]) -> HumanQuestion | None:
    """A text and its question, where a conversation is nothing but these and an answer."""
    if [role for role, _ in messages] != ["user", "assistant"]:
        return None
    parts = [part for part in messages[0][1].split("\n\n") if not part.startswith("Read this")]
    at = next(
        (i for i in (-1, 0) if parts and parts[i].endswith("?") and len(parts[i]) < 250), None
    )
    if at is None or len(parts) < 2:
        return None
    question = parts.pop(at)
    return HumanQuestion("\n\n".join(parts), question, messages[1][1])
