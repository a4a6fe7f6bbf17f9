"""Sentences from templates: "[Hi|Hello], {v}!" is two sentences with a place for a value.

A template's choices may be nested. Everything random comes from the `Random` that is passed in, so
a seed names its conversations for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

FOLDER = Path(__file__).parent
INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
SPACES = re.compile(r" {2,}")
ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]))")
# Words that begin with another sound than letter.
SOUNDS_LIKE_CONSONANT = re.compile(r"(uni[cfqtv]|use|one|eu|ukulele)", re.IGNORECASE)
SOUNDS_LIKE_VOWEL = re.compile(r"(hour|honest|honou?r)", re.IGNORECASE)

Turn = tuple[str, str]  # what the user says, what the assistant says


@cache
def table(name: str) -> Any:
    """The data of NAME.json beside this module."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def choose_words(rng: Random, template: str) -> str:
    """One of the sentences that the template stands for, its slots still open."""
    while (found := INNERMOST_CHOICE.search(template)) is not None:
        choice = rng.choice(found[1].split("|"))
        template = template[: found.start()] + choice + template[found.end() :]
    return template


def say(rng: Random, template: str | Sequence[str], **slots: object) -> str:
    """One sentence of a template, or of one of several, with its slots filled and a/an right.

    The slot {V} is {v} with a capital letter.
    """
    if not isinstance(template, str):
        template = rng.choice(template)
    text = choose_words(rng, template)
    text = SLOT.sub(lambda slot: _fill(slot[1], slots), text)
    return with_articles(SPACES.sub(" ", text).strip())


def framed(rng: Random, templates: Sequence[str], **slots: str) -> str:
    """`say` for slots that are left exactly as they are."""
    marks = {slot: chr(i) for i, slot in enumerate(slots)}
    frame = say(rng, templates, **marks)
    for slot, mark in marks.items():
        frame = frame.replace(mark, slots[slot])
    return frame


def _fill(name: str, slots: dict[str, object]) -> str:
    if name in slots:
        return str(slots[name])
    return capital(str(slots[name.lower()]))


def with_articles(text: str) -> str:
    """a or an by the sound that follows; "A" as a letter of its own is not touched elsewhere."""

    def article(found: re.Match[str]) -> str:
        rest = text[found.end() :]
        is_vowel = found[2] in "aeiouAEIOU" and not SOUNDS_LIKE_CONSONANT.match(rest)
        return found[1] + ("n " if is_vowel or SOUNDS_LIKE_VOWEL.match(rest) else " ")

    return ARTICLE.sub(article, text)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """For the middle of a sentence; "I" and names of one's own stay."""
    first = text.split(" ", 1)[0]
    if first in ("I", "I'm", "I've") or first not in STARTING_WORDS:
        return text
    return text[:1].lower() + text[1:]


STARTING_WORDS = frozenset(
    "What Who Which Where When How Why Do Does Did Is Are Am Can Could Would Will If In On To From"
    " The A An My You Under With Say Tell Give Name Write Please There It This Your By At For Whom"
    " Add Take Put Count Calculate Make Imagine One Two Invent Let Read".split()
)


def for_you(text: str) -> str:
    """What the user says of themselves, as the assistant says it: "my dog" is "your dog"."""
    return " ".join(YOURS.get(word, word) for word in text.split(" "))


YOURS = {"my": "your", "My": "Your", "I": "you", "am": "are", "me": "you", "you": "me"}


def and_join(items: Sequence[str]) -> str:
    if len(items) < 3:
        return " and ".join(items)
    return ", ".join(items[:-1]) + ", and " + items[-1]
