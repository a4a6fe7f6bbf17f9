"""Names and things to speak of, many of them invented: who has never seen a word must copy it."""

from __future__ import annotations

import json
import re
from functools import cache
from random import Random

from training.generator.grammar import capital, table

ONSETS = (
    "b c d f g h j k l m n p r s t v w y z br cr dr fl fr gl gr kl kr pl pr sh sk sl sm sn sp st"
    " th tr tw ch qu bl vr zh"
).split()
VOWELS = "a e i o u a e i o u ai ea ee oo ou ie io ei au".split()
MIDDLES = "b d f g k l m n p r s t v z ll nn rr ss tt nd nt rk lm ld mb mp st rv lv x".split()
ENDINGS = (
    " n l r s x m t ck ra lo na bo mi ka ta do rin lin den vik mar ette ina on is us el an or ix ax"
    " ey y in ard bert mond well son dor ven rick ton wyn lia nia ria sha"
).split(" ")


def invented(rng: Random) -> str:
    """A word of one to three syllables that nobody has heard."""
    word = rng.choice(ONSETS) if rng.random() < 0.88 else ""
    word += rng.choice(VOWELS)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        word += rng.choice(MIDDLES) + rng.choice(VOWELS[:10])
    return capital(word + rng.choice(ENDINGS))


@cache
def any_words() -> list[str]:
    """Some thousands of words without regard to what they mean."""
    return sorted(set(re.findall(r"[a-z]{3,}", json.dumps(table("glosses")))))


def unheard(rng: Random) -> str:
    """A name made in one of several ways, so that no habit of spelling helps but to copy it."""
    pick = rng.random()
    if pick < 0.5:
        return invented(rng)
    first, second = rng.sample(any_words(), 2)
    if pick < 0.75:
        return capital(first[: rng.randrange(2, 6)] + second[-rng.randrange(2, 6) :])
    if pick < 0.88 and len(first) > 4:
        return capital(first)
    letters = [rng.choice("aeiouy" if i % 2 else "bcdfghjklmnpqrstvwxz") for i in range(8)]
    start = rng.randrange(2)
    return capital("".join(letters[start : start + rng.randrange(3, 8)]))


def name(rng: Random) -> str:
    """A person's: familiar in a third of the cases, else unheard; at times with a surname."""
    words = table("words")
    pick = rng.random()
    first = rng.choice(words["girls"] + words["boys"]) if pick < 0.35 else unheard(rng)
    if rng.random() < 0.06:
        return f"{first} {rng.choice(words['surnames']) if pick < 0.3 else unheard(rng)}"
    return first


def pet_name(rng: Random) -> str:
    words = table("words")
    pick = rng.random()
    if pick < 0.25:
        return str(rng.choice(words["pet_names"]))
    if pick < 0.33:
        return str(rng.choice(words["girls"] + words["boys"]))
    if pick < 0.42:
        return capital(str(rng.choice(words["foods"] + words["animals"])))
    return unheard(rng)


def place(rng: Random) -> str:
    """A town: a real one, one put together, or one invented."""
    words = table("words")
    pick = rng.random()
    if pick < 0.33:
        return str(rng.choice(words["cities"]))
    if pick < 0.65:
        town = rng.choice(words["place_starts"]) + rng.choice(words["place_ends"])
        prefix = rng.choice(("", "", "", "", "New ", "Port ", "San ", "Lake ", "Saint ", "Fort "))
        return f"{prefix}{town}"
    return unheard(rng)


def value(rng: Random, pool: str) -> str:
    """A word of one of the pools that memory.json names."""
    if pool in MAKERS:
        return MAKERS[pool](rng)
    return str(rng.choice(table("words")[POOLS[pool]]))


def _age(rng: Random) -> str:
    return str(rng.randrange(4, 96))


def _number(rng: Random) -> str:
    return str(rng.randrange(0, rng.choice((10, 100, 1000))))


def _word(rng: Random) -> str:
    words = table("words")
    if rng.random() < 0.3:
        return str(rng.choice(words["animals"] + words["owned_things"]))
    made = unheard(rng)
    return made.lower() if rng.random() < 0.5 else made


def _portable(rng: Random) -> str:
    """What somebody may have put somewhere: not the house."""
    return str(rng.choice([each for each in table("words")["owned_things"] if each not in FIXED]))


FIXED = ("house", "door", "bed", "sofa")
MAKERS = {
    "portable": _portable,
    "name": name,
    "petname": pet_name,
    "place": place,
    "age": _age,
    "number": _number,
    "invented": _word,
}
POOLS = {
    "pet": "pets",
    "colour": "colours",
    "job": "jobs",
    "food": "foods",
    "hobby": "hobbies",
    "relative": "relatives",
    "named_thing": "named_things",
    "owned_thing": "owned_things",
    "spot": "spots",
    "spot_noun": "spot_nouns",
    "drink": "drinks",
    "day": "days",
    "event": "events",
    "animal": "animals",
    "instrument": "instruments",
    "language": "languages",
    "sport": "sports",
}
