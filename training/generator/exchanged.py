"""Other names in a text, and other words of the same class: what is known by heart does not help."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from training.generator.grammar import capital, with_articles
from training.generator.words import name, unheard

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
