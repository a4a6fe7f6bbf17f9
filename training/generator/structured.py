"""Short JSON and lists that the user brings: made from what they say, echoed, or read from."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from training.generator.grammar import Turn, and_join, say, table
from training.generator.memory import Distract
from training.generator.revisions import Copying
from training.generator.words import name, unheard, value

KEYS = {
    "name": "name", "age": "age", "city": "place", "color": "colour", "food": "food", "job": "job", "pet": "petname",
    "drink": "drink", "sport": "sport", "word": "invented", "number": "number", "day": "day", "animal": "animal",
}  # fmt: skip
SENTENCES = {
    "name": "[{p} is called {v}|the name is {v}]", "age": "is {v} years old", "city": "lives in {v}", "color": "likes {v}", "food": "eats {v}", "job": "works as a {v}",
    "pet": "has a pet called {v}", "drink": "drinks {v}", "sport": "plays {v}", "word": "knows the word {v}", "number": "has the number {v}", "day": "comes on {v}", "animal": "likes the {v}",
}  # fmt: skip
AS_JSON = (
    "[Write|Give|Put|Return|Show] [this|that|it] as JSON: {t}", "{t} [Make JSON of it.|As JSON, please.|Give me JSON.|Turn this into JSON.|Write that as a JSON object.]",
    "[Turn|Make|Convert] this into JSON: {t}", "[Extract|Find] {k} [from|in] [this|the text] as JSON: {t}", "JSON with {k}: {t}", "{t} [Return JSON with|Answer with JSON that has] {k}.",
)  # fmt: skip
ECHO = (
    "[Repeat|Echo|Say again|Copy] this JSON: {j}",
    "[Repeat|Echo|Copy|Print] {j}",
    "[Give me back|Return] [exactly |]this: {j}",
    "Copy the object: {j}",
)
READ = (
    "[What is|Tell me|Read out|Which is] the {k} in {j}?",
    '[This is|Here is|I have] [an object|a record|some JSON]: {j}[.|] [Which value|What value|What|What word] [has|belongs to|is at|is behind|stands for|is under] "{k}"?',
    "{j} - [and the {k}|what stands for {k}|value of {k}|give me {k}]?",
    "[From|Out of] {j}, [give|read|tell] me [only |]the {k}.",
    "{j} What is the {k}?",
    "Look at this JSON: {j} [What does {k} say?|What is the value of {k}?|The {k}?]",
    "In {j}, what is {k}?",
)


def record(rng: Random) -> dict[str, Any]:
    keys = rng.sample(list(KEYS), rng.choice((1, 2, 2, 3, 3, 4)))
    if "name" not in keys and rng.random() < 0.6:
        keys[0] = "name"
    made = {key: value(rng, KEYS[key]) for key in keys}
    return {key: int(each) if key in ("age", "number") else each for key, each in made.items()}


def as_json(rng: Random) -> Copying:
    """JSON from a sentence, an echo, or a value out of it; replies are nothing but that."""
    fields = record(rng)
    written = json.dumps(fields, ensure_ascii=False)
    values = [str(each) for each in fields.values()]
    pick = rng.random()
    if pick < 0.25:
        return [(say_plain(rng, ECHO, j=written), written)], values
    if pick < 0.5:
        key = rng.choice(list(fields))
        asked = say_plain(rng, READ, j=written, k=key)
        return [(asked, say(rng, "[The {k} is {v}.|{V}.|It is {v}.]", k=key, v=fields[key]))], [
            str(fields[key])
        ]
    keys = and_join(list(fields))
    return [(say_plain(rng, AS_JSON, t=_sentence(rng, fields), k=keys), written)], values


def say_plain(rng: Random, templates: tuple[str, ...], **slots: str) -> str:
    """Slots are put in last, since JSON has brackets of its own."""
    marks = {key: f"\0{i}\0" for i, key in enumerate(slots)}
    text = say(rng, templates, **marks)
    for key, mark in marks.items():
        text = text.replace(mark, slots[key])
    return text


def _sentence(rng: Random, fields: dict[str, Any]) -> str:
    person = str(fields.get("name", "")) or rng.choice(
        ("My friend", "She", "He", "The guest", "Somebody")
    )
    parts = [
        say(rng, SENTENCES[key], v=each, p="the guest")
        for key, each in fields.items()
        if key != "name"
    ]
    if not parts:
        return say(rng, "[The name is {v}.|{v} is the name.|I am {v}.]", v=person)
    return f"{person} {and_join(parts)}."


LIST_NAMES = (
    "shopping list",
    "to-do list",
    "packing list",
    "wish list",
    "guest list",
    "list",
    "reading list",
    "menu",
)
TASKS = (
    "call the bank", "water the plants", "buy stamps", "clean the car", "pay the rent", "write to {n}", "fix the bike", "feed the cat", "book a table", "send the letter",
    "wash the dishes", "learn for the test", "visit {n}", "print the tickets", "cut the grass", "bake a cake", "return the books", "charge the phone", "pack the bag", "see the dentist",
)  # fmt: skip


def a_list(rng: Random, distract: Distract) -> Copying:
    """A list is told, changed, and asked for: as a whole, its number, its first, what is on it."""
    sort = rng.choice(LIST_NAMES)
    items = _items(rng, sort)
    shown = rng.choice((", ".join(items), and_join(items), "\n- " + "\n- ".join(items)))
    told = say_plain(
        rng,
        (
            "[My {s}|Here is my {s}|This is my {s}|I wrote a {s}|Remember my {s}|Please keep my {s}]: {l}",
            "[On my {s} [are|I have]|My {s} has] {l}",
        ),
        s=sort,
        l=shown,
    )
    turns: list[Turn] = [(told + rng.choice(("", ".")), say(rng, table("memory")["ack"]))]
    everything = list(items)
    for _ in range(rng.choice((0, 0, 1, 2))):
        turns += distract(rng)
    for _ in range(rng.choice((0, 1, 1, 2))):
        turns.append(_change(rng, sort, items, everything))
        if rng.random() < 0.3:
            turns += distract(rng)
    for _ in range(rng.choice((1, 2, 3))):
        turns.append(_ask_list(rng, sort, items, everything))
    return turns, everything


def _items(rng: Random, sort: str) -> list[str]:
    count = rng.choice((2, 3, 3, 4, 5, 6))
    words = table("words")
    if sort in ("to-do list",):
        return [task.replace("{n}", name(rng)) for task in rng.sample(TASKS, count)]
    if sort == "guest list":
        return _different(rng, count, lambda: name(rng))
    if sort == "reading list":
        return _different(rng, count, lambda: unheard(rng))
    pool = words["owned_things"] if sort in ("packing list", "wish list") else words["foods"]
    return rng.sample(pool, count)


def _different(rng: Random, count: int, make: Any) -> list[str]:
    made: list[str] = []
    while len(made) < count:
        if (each := str(make())) not in made:
            made.append(each)
    return made


def _change(rng: Random, sort: str, items: list[str], everything: list[str]) -> Turn:
    if rng.random() < 0.6 or len(items) < 3:
        (new,) = _items(rng, sort)[:1]
        if new in items:
            return _ask_list(rng, sort, items, everything)
        items.append(new)
        everything.append(new)
        asked = say(
            rng,
            "[Add|Please add|Put|Write] {v} [to the {s}|on the {s}|on it|to it].",
            v=new,
            s=sort,
        )
        return asked, _whole(rng, sort, items) if rng.random() < 0.6 else say(
            rng, "[Okay|Done|All right], {v} is on your {s}.", v=new, s=sort
        )
    gone = items.pop(rng.randrange(len(items)))
    asked = say(
        rng,
        "[Remove|Take|Delete|Strike] {v} [from the {s}|from my {s}|off the {s}|from it].",
        v=gone,
        s=sort,
    )
    return asked, _whole(rng, sort, items) if rng.random() < 0.7 else say(
        rng, "[Okay|Done], {v} is no longer on your {s}.", v=gone, s=sort
    )


def _whole(rng: Random, sort: str, items: list[str]) -> str:
    return say_plain(
        rng,
        ("Your {s}: {l}.", "On your {s} [are|you have]: {l}.", "Your {s} has {l}."),
        s=sort,
        l=and_join(items),
    )


def _ask_list(rng: Random, sort: str, items: list[str], everything: list[str]) -> Turn:
    pick = rng.random()
    if pick < 0.45:
        asked = "[What did I want to remember|Which things did I tell you|What were the things|Read me the list|Read it all back to me|What must I get|What do I need|Name all of it|What did I list|What did I pack or plan|Tell me the whole list|What is on my {s}|What is on the {s}|What does my {s} say|What did I put on my {s}|Which things are on my {s}|Read me my {s}|Tell me my {s}|My {s}, please|What do I have on my {s}]?"
        return say(rng, asked, s=sort), _whole(rng, sort, items)
    if pick < 0.6:
        asked = "[How many things are on my {s}|How long is my {s}|How many items are that]?"
        return say(rng, asked, s=sort), say_plain(
            rng, ("There are {n} on your {s}: {l}.",), s=sort, n=str(len(items)), l=and_join(items)
        )
    if pick < 0.8:
        i, word = rng.choice(((0, "first"), (-1, "last"), (1, "second")))
        asked = "[Which one did I say {x}|Which of them was {x}|Which thing comes {x}|What is the {x} thing on my {s}|What comes {x} on my {s}|What is {x} on the {s}|The {x} one]?"
        return say(rng, asked, s=sort, x=word), say(rng, "The {x} one is {v}.", x=word, v=items[i])
    there = rng.choice(items)
    if rng.random() < 0.5:
        return say(
            rng, "[Is {v} on my {s}|Did I write {v} on my {s}|Is {v} on it]?", s=sort, v=there
        ), say(rng, "Yes, {v} is on your {s}.", s=sort, v=there)
    while (other := rng.choice(_items(rng, sort))) in items:
        pass
    return say(
        rng, "[Is {v} on my {s}|Did I write {v} on my {s}|Is {v} on it]?", s=sort, v=other
    ), say(rng, "No, {v} is not on your {s}.", s=sort, v=other)
