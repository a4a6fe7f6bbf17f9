"""Questions that people asked about stories, each time with other names and things in them.

The stories are few and would soon be known by heart. With new heroes, animals and objects in text,
question and answer alike, what is left to learn is how people ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

from training.generator import excerpts
from training.generator.excerpts import Excerpt, Text
from training.generator.grammar import capital, framed, table, with_articles
from training.generator.handed import Asked, dialogue
from training.generator.revisions import Copying
from training.generator.words import name, unheard


@dataclass(frozen=True, slots=True)
class HumanQuestion:
    text: str
    question: str
    answer: str


AskedByPeople = Callable[[Random], HumanQuestion]
WORD = re.compile(r"[A-Za-z]+")
RENAMED, EXCHANGED = 0.8, 0.5  # of the names, of the words that others of their class stand for
CLASSES = (
    "king prince boy lad father uncle farmer soldier tailor miller hunter knight wizard monk sailor fisherman baker giant",
    "queen princess girl mother aunt lady maiden witch nun fairy bride stepmother grandmother",
    "servant cook guard stranger merchant robber thief doctor judge teacher friend neighbor traveler beggar painter",
    "sons brothers boys soldiers knights sailors hunters robbers giants dwarfs kings",
    "daughters sisters girls maidens princesses fairies witches ladies queens",
    "dog cat horse cow goat pig sheep fox wolf bear lion hare rabbit mouse frog snake donkey deer tiger monkey",
    "bird hen goose duck eagle raven owl swan dove parrot sparrow crow",
    "dogs cats horses cows goats pigs wolves bears lions hares rabbits mice frogs snakes donkeys",
    "castle palace house cottage hut tower inn mill barn tent cave church",
    "forest wood garden field meadow valley mountain hill desert swamp island",
    "river lake sea pond spring",
    "ring sword cup box bag stick rope hat coat lamp key book bell mirror drum spoon candle needle basket crown",
    "gold silver iron copper glass wood stone silk wool",
    "bread meat fish soup cake fruit milk wine cheese honey butter",
    "red blue green white black yellow brown golden gray",
    "two three four five six seven eight nine ten twelve twenty hundred",
    "morning evening night noon", "day week month year", "days weeks months years hours",
    "big small old young tall", "happy sad angry tired hungry sick", "ship boat wagon cart carriage",
)  # fmt: skip
NOT_NAMES = frozenset("I Mr Mrs Dr God Lord Sir Christmas English French German".split())


@cache
def class_of() -> dict[str, tuple[str, ...]]:
    return {word: tuple(each.split()) for each in CLASSES for word in each.split()}


def names_in(text: str) -> list[str]:
    """Words with a capital in the middle of a sentence, which are nowhere without."""
    inside = set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}", text))
    lower = set(re.findall(r"\b[a-z]+\b", text))
    return sorted(word for word in inside - NOT_NAMES if word.lower() not in lower)


def exchange(rng: Random, text: str) -> dict[str, str]:
    """Other names, and other words of the same class, for words of the text."""
    changed: dict[str, str] = {}
    classes = class_of()
    for word in sorted({word.lower() for word in WORD.findall(text)} & classes.keys()):
        if rng.random() < EXCHANGED:
            other = rng.choice(classes[word])
            if other not in changed.values():
                changed[word] = other
    for word in names_in(text):
        if word.lower() not in classes and rng.random() < RENAMED:
            changed[word] = name(rng).split()[0] if rng.random() < 0.6 else unheard(rng)
    return changed


def with_others(text: str, changed: dict[str, str]) -> str:
    def other(found: re.Match[str]) -> str:
        word = found[0]
        if word in changed:
            return changed[word]
        instead = changed.get(word.lower()) if word[0].isupper() else None
        return capital(instead) if instead else word

    return with_articles(WORD.sub(other, text))


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
