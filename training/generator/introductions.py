"""Many things told in one message, as people introduce themselves, and each of them asked for."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from training.generator import memory
from training.generator.grammar import capital, say, table
from training.generator.memory import Distract, Fact
from training.generator.revisions import Copying, missed, pause
from training.generator.words import value

# One clause each, for a sentence that tells many things.
CLAUSES = {
    "name": ("I am {v}", "my name is {v}", "I'm {v}", "they call me {v}", "I am called {v}"),
    "place": ("I live in {v}", "I am from {v}", "my home is in {v}", "I come from {v}", "my flat is in {v}"),
    "pet": ("my {k} is called {v}", "I have a {k} named {v}", "my {k} is {v}", "I own a {k}, {v}", "we have a {k} called {v}"),
    "colour": ("my favorite color is {v}", "I like {v} best", "I love the color {v}", "{v} is my color"),
    "age": ("I am {v} years old", "I am {v}", "I turned {v}", "I'm {v} years of age"),
    "job": ("I work as a {v}", "I am a {v}", "my job is {v}", "I earn my money as a {v}"),
    "food": ("I love {v}", "I like to eat {v}", "my favorite food is {v}", "I eat {v} every day"),
    "drink": ("I drink {v}", "my favorite drink is {v}", "I like {v}"),
    "relative": ("my {k} is called {v}", "my {k}'s name is {v}", "I have a {k} named {v}", "my {k} is {v}"),
    "hobby": ("I like {v}", "my hobby is {v}", "I spend my time with {v}"),
    "number": ("my lucky number is {v}",),
    "day": ("my {k} is on {v}", "I have a {k} on {v}"),
    "thing_colour": ("my {k} is {v}", "I have a {v} {k}"),
    "sport": ("my sport is {v}", "I play {v}"),
    "instrument": ("I play the {v}",),
    "animal": ("my favorite animal is the {v}", "I love the {v}"),
    "company": ("I work for {v}", "my company is {v}"),
    "relative_place": ("my {k} lives in {v}", "my {k} is from {v}"),
}  # fmt: skip
LABELS = {
    "name": "Name", "place": "[City|Home|Town|From]", "pet": "{K}", "colour": "[Color|Favorite color]",
    "age": "Age", "job": "[Job|Work]", "food": "[Food|Favorite food]", "relative": "{K}", "hobby": "Hobby",
    "drink": "Drink", "number": "Lucky number", "sport": "Sport",
}  # fmt: skip


def several(rng: Random, distract: Distract) -> Copying:
    """Three to six things in one message, and each of them asked for."""
    kinds = rng.sample(list(CLAUSES), rng.choice((2, 3, 3, 4, 4, 5, 6)))
    if rng.random() < 0.6 and "name" not in kinds:
        kinds[0] = "name"
    if "age" in kinds and "job" in kinds:
        kinds.remove("age")
    facts = [memory.make_fact(rng, kind) for kind in kinds]
    if rng.random() < 0.25:
        facts.append(replace(memory.make_fact(rng, "pet"), key=value(rng, "pet")))
    facts = _distinct(facts)
    turns = [(at_once(rng, facts), _welcome(rng, facts))]
    turns += pause(rng, facts, distract)
    asked = rng.sample(facts, len(facts))
    for fact in asked:
        turns.append((memory.ask(rng, fact), memory.answer(rng, fact)))
    if rng.random() < 0.35:
        turns.insert(rng.randrange(1, len(turns) + 1), missed(rng, facts))
    return turns, [fact.value for fact in facts]


def _distinct(facts: list[Fact]) -> list[Fact]:
    found: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        found.setdefault((fact.kind, fact.key), fact)
    return list(found.values())


def at_once(rng: Random, facts: list[Fact]) -> str:
    """ "I am Bo, I live in Lima and my dog is called Rex." """
    if rng.random() < 0.12 and all(fact.kind in LABELS for fact in facts):
        pairs = [f"{say(rng, LABELS[f.kind], **f.slots)}: {f.value}" for f in facts]
        return rng.choice((", ", "; ", "\n", ". ")).join(pairs)
    clauses = [_clause(rng, fact, i) for i, fact in enumerate(facts)]
    if rng.random() < 0.25:
        return " ".join(f"{capital(each)}." for each in clauses)
    text = clauses[0]
    for i, clause in enumerate(clauses[1:], start=1):
        is_last = i == len(clauses) - 1
        joint = (
            (" and ", ", and ", " and also ", ", plus ")
            if is_last
            else (", ", ", ", " and ", "; ", ", then ")
        )
        text += rng.choice(joint if rng.random() < 0.85 else (", ",)) + clause
    opener = rng.choice(
        ("", "", "", "Hi, ", "Hello! ", "About me: ", "So, ", "In short: ", "Please remember: ")
    )
    return capital(opener + text) + rng.choice((".", ".", "!", ""))


def _clause(rng: Random, fact: Fact, place: int) -> str:
    options = CLAUSES[fact.kind]
    if fact.kind in ("age", "name") and place:  # "I am 31" beside "I am Bo" is said seldom
        options = tuple(each for each in options if each != "I am {v}") or options
    return say(rng, options, **fact.slots)


def _welcome(rng: Random, facts: list[Fact]) -> str:
    named = [fact.value for fact in facts if fact.kind == "name"]
    if named and rng.random() < 0.4:
        return say(
            rng,
            "[Nice to meet you|Hello|Hi|Pleased to meet you|Welcome], {v}[!|.] [Thanks for telling me.|I will remember all of it.|That is a lot to know.|What would you like to do?|I have noted it.|]",
            v=named[0],
        )
    return say(rng, table("memory")["ack"])
