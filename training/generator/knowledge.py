"""Simple facts of the tables: animals, inventions, days and months, opposites, colours, and so on."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from training.generator.grammar import Turn, capital, say, table
from training.generator.phrasing import ask_for

PLURALS = {
    "mouse": "mice", "fish": "fish", "sheep": "sheep", "deer": "deer", "wolf": "wolves",
    "octopus": "octopuses", "child": "children", "man": "men", "woman": "women", "foot": "feet",
    "tooth": "teeth", "goose": "geese", "leaf": "leaves", "knife": "knives", "life": "lives",
    "loaf": "loaves", "half": "halves", "person": "people", "ox": "oxen", "thief": "thieves",
    "shelf": "shelves", "wife": "wives", "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes",
}  # fmt: skip
DISCOVERED = frozenset(
    (
        "penicillin", "the theory of relativity", "the law of gravity", "the theory of evolution",
        "radium",
    )
)  # fmt: skip


def facts() -> Any:
    return table("knowledge")


def plural(word: str) -> str:
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def pair(rng: Random, name: str) -> tuple[str, Any]:
    entries = facts()[name]
    key = rng.choice(list(entries))
    return key, entries[key]


def who_made(rng: Random) -> list[Turn]:
    work, author = pair(rng, "works")
    asked = (
        "Who wrote {k}?",
        "Who is the author of {k}?",
        "who wrote {k}",
        "Do you know who wrote {k}?",
    )
    replies = ("{v} wrote {k}.", "{k} was written by {v}.", "{v}.")
    return [_exchange(rng, asked, ("the author of {k}",), replies, k=work, v=author)]


def who_painted(rng: Random) -> list[Turn]:
    work, painter = pair(rng, "art")
    asked = ("Who painted {k}?", "who painted {k}", "Which artist painted {k}?")
    return [
        _exchange(rng, asked, (), ("{v} painted {k}.", "It was painted by {v}."), k=work, v=painter)
    ]


def who_invented(rng: Random) -> list[Turn]:
    thing, inventor = pair(rng, "inventions")
    asked: tuple[str, ...]
    if thing in DISCOVERED:
        asked, replies = (
            ("Who discovered {k}?", "Who is known for {k}?"),
            ("{v} is known for {k}.", "{v}."),
        )
    else:
        asked, replies = (
            ("Who invented {k}?",),
            ("{V} invented {k}.", "{V} is known for inventing {k}."),
        )
    return [_exchange(rng, asked, (), replies, k=thing, v=inventor)]


def landmark(rng: Random) -> list[Turn]:
    thing, place = pair(rng, "landmarks")
    asked = (
        "Where is {k}?",
        "where can I find {k}?",
        "Where can you see {k}?",
        "In which place is {k}?",
    )
    return [
        _exchange(
            rng,
            asked,
            ("the place of {k}",),
            ("{K} is in {v}.", "You can find {k} in {v}."),
            k=thing,
            v=place,
        )
    ]


def superlative(rng: Random) -> list[Turn]:
    thing, value = pair(rng, "superlatives")
    asked = (
        "What is {k}?",
        "what is {k}",
        "What's {k}?",
        "Can you tell me what {k} is?",
        "Do you know {k}?",
    )
    return [_exchange(rng, asked, ("{k}",), ("{K} is {v}.", "It is {v}."), k=thing, v=value)]


def how_many(rng: Random) -> list[Turn]:
    what, count = pair(rng, "counts")
    asked = rng.choice((f"How many {what}?", f"how many {what}"))
    if rng.random() < 0.25:
        return [(asked, f"{capital(count)}.")]
    return [(asked, count_sentence(what, count))]


def count_sentence(what: str, count: str) -> str:
    """ "days are in a week", "seven" → "There are seven days in a week." """
    if found := re.match(r"(.+?) are there$", what):
        return f"There are {count} {found[1]}."
    if found := re.match(r"(.+?) are (.+)$", what):
        return f"There are {count} {found[1]} {found[2]}."
    found = re.match(r"(.+?) (does|do) (.+?)( usually)? have$", what)
    assert found, what
    verb = "has" if found[2] == "does" else "have"
    return f"{capital(found[3])}{found[4] or ''} {verb} {count} {found[1]}."


def color(rng: Random) -> list[Turn]:
    thing, shade = pair(rng, "colors")
    asked = ("What color is {k}?", "what colour is {k}", "Tell me the color of {k}.")
    return [
        _exchange(
            rng,
            asked,
            ("the color of {k}",),
            ("{K} is {v}.", "{V}.", "It is {v}."),
            k=thing,
            v=shade,
        )
    ]


def tool(rng: Random) -> list[Turn]:
    thing, use = pair(rng, "tools")
    verb = "are" if thing in ("scissors", "glasses") else "is"
    asked = (
        "What do you use {k} for?",
        f"What {verb} {{k}} for?",
        "What can I do with {k}?",
        "Why do people use {k}?",
    )
    return [
        _exchange(rng, asked, (), ("You use {k} to {v}.", "People use {k} to {v}."), k=thing, v=use)
    ]


def job(rng: Random) -> list[Turn]:
    person, task = pair(rng, "jobs")
    if rng.random() < 0.3:
        return [(say(rng, "Who {v}?", v=task), say(rng, "A {k} {v}.", k=person, v=task))]
    asked = ("What does a {k} do?", "What is the job of a {k}?", "what does a {k} do")
    return [_exchange(rng, asked, ("the job of a {k}",), ("A {k} {v}.",), k=person, v=task)]


def calendar(rng: Random) -> list[Turn]:
    pick = rng.random()
    if pick < 0.25:
        month, count = pair(rng, "month_days")
        leap = " In a leap year, it has 29." if month == "February" else ""
        return [(f"How many days are in {month}?", f"{month} has {count} days.{leap}")]
    sort, names = rng.choice((("day", facts()["days"]), ("month", facts()["months"])))
    i = rng.randrange(len(names))
    if pick < 0.4 and sort == "day":
        n = rng.randrange(2, 6)
        later = names[(i + n) % 7]
        asked = f"If today is {names[i]}, what day will it be in {n} days?"
        return [(asked, f"If today is {names[i]}, it will be {later} in {n} days.")]
    word, step = rng.choice((("after", 1), ("before", -1)))
    other = names[(i + step) % len(names)]
    return [(f"What {sort} comes {word} {names[i]}?", f"{other} comes {word} {names[i]}.")]


def shape(rng: Random) -> list[Turn]:
    name, sides = pair(rng, "shapes")
    asked = say(rng, "[How|how] many sides does a {k} have?", k=name)
    return [(asked, say(rng, "A {k} has {v} sides.", k=name, v=sides))]


def element(rng: Random) -> list[Turn]:
    name, symbol = pair(rng, "elements")
    asked = ("What is the chemical symbol for {k}?", "What is the symbol of {k}?")
    return [_exchange(rng, asked, (), ("The chemical symbol for {k} is {v}.",), k=name, v=symbol)]


def body_part(rng: Random) -> list[Turn]:
    use, part = pair(rng, "parts")
    return [(f"What part of the body do you use to {use}?", f"You use your {part} to {use}.")]


def opposite(rng: Random) -> list[Turn]:
    a, b = rng.choice(facts()["opposites"])
    if rng.random() < 0.5:
        a, b = b, a
    asked = (
        "What is the opposite of {k}?",
        'what is the opposite of "{k}"',
        "Give me the opposite of {k}.",
        "opposite of {k}?",
    )
    return [
        _exchange(
            rng, asked, ("the opposite of {k}",), ("The opposite of {k} is {v}.", "{V}."), k=a, v=b
        )
    ]


def _exchange(
    rng: Random,
    asked: tuple[str, ...],
    nouns: tuple[str, ...],
    replies: tuple[str, ...],
    **slots: Any,
) -> Turn:
    return ask_for(rng, asked, nouns, **slots), say(rng, replies, **slots)


def animal(rng: Random) -> list[Turn]:
    name, (sort, home, food, sound, baby, legs, fact) = pair(rng, "animals")
    slots = {"a": name, "p": plural(name), "home": home, "food": food}
    has_own_word = not baby.startswith("baby")
    leg_count = "has no legs." if legs == 0 else f"has {legs} legs."
    if name == "octopus":
        leg_count = "has eight arms."
    is_a = "is a kind of fish." if sort == "fish" else f"is a {sort}."
    other = rng.choice(("mammal", "bird", "insect", "reptile"))
    rated = (
        f"Yes, a {name} is a {other}."
        if other == sort
        else f"No, a {name} is not a {other}. It is a {sort}."
    )
    exchanges = (
        ("[What sound does a {a} make?|what does a {a} say]", f"A {{a}} {sound}."),
        ("[What do {p} eat?|what does a {a} eat]", "{P} eat {food}."),
        ("[Where do {p} live?|where does a {a} live]", "{P} live in {home}."),
        ("[What is a baby {a} called?|What do you call a baby {a}?]",
         f"A baby {{a}} is called a {baby}." if has_own_word else f"It is just called a {baby}."),
        ("[How|how] many legs does a {a} have?", f"A {{a}} {leg_count}"),
        ("What kind of animal is a {a}?", f"A {{a}} {is_a}"),
        (f"Is a {{a}} a {other}?", rated),
        ("[Tell me a fact about {p}.|Tell me something interesting about {p}.|Do you know anything about {p}?]", f"{fact}."),
        ("[Tell me about {p}.|tell me about {p}|What can you tell me about {p}?|Describe a {a}.|What is a {a}?|Write a few sentences about {p}.]",
         _about(rng, sort, baby, fact)),
    )  # fmt: skip
    asked, reply = rng.choice(exchanges)
    return [(say(rng, asked, **slots), capital(say(rng, reply, **slots)))]


def _about(rng: Random, sort: str, baby: str, fact: str) -> str:
    first = "{P} are fish." if sort == "fish" else f"{{P}} are {plural(sort)}."
    last = (
        f" A baby {{a}} is called a {baby}."
        if rng.random() < 0.5 and not baby.startswith("baby")
        else ""
    )
    return f"{first} They live in {{home}}, and they eat {{food}}. {fact}.{last}"


MAKERS = (
    who_made, who_painted, who_invented, landmark, superlative, superlative, how_many, color, tool,
    job, calendar, calendar, shape, element, body_part,
)  # fmt: skip


def question(rng: Random) -> list[Turn]:
    return rng.choice(MAKERS)(rng)
