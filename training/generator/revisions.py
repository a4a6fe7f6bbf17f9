"""What the user told is put right, asked for with yes or no, or nearly the same is asked for.

The newest value counts; who asks for the one before gets it too. A question for something close to
what was told (the cat, when the dog was told) is answered with "I do not know", and right beside
it stand questions that can be answered, so that neither becomes a habit.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from training.generator import memory, unknown
from training.generator.grammar import Turn, capital, for_you, say, table, uncapital
from training.generator.memory import Distract, Fact
from training.generator.words import value

Copying = tuple[list[Turn], list[str]]  # turns, and the values that replies repeat

GAPS = (0, 0, 0, 0, 1, 1, 2, 3, 5, 8, 14)
# Kinds whose noun reads well in "… is {v}": what is corrected and checked in other words.
PLAIN = (
    "name", "pet", "colour", "food", "job", "relative", "thing_name", "thing_colour", "word",
    "number", "drink", "day", "animal", "sport", "hobby", "age", "place",
)  # fmt: skip
NOUNS = {
    "name": "my [name|first name]", "pet": "[my {k}'s name|the name of my {k}]",
    "colour": "my favorite color", "food": "my favorite food", "job": "my job",
    "relative": "[my {k}'s name|the name of my {k}]", "thing_name": "the name of my {k}",
    "thing_colour": "the color of my {k}", "word": "the [secret|code|magic] word",
    "number": "my lucky number", "drink": "my favorite drink", "day": "the day of my {k}",
    "animal": "my favorite animal", "sport": "my [favorite |]sport", "hobby": "my hobby",
    "age": "my age", "place": "my [city|home town|town]",
}  # fmt: skip


def texts() -> Any:
    return table("revisions")


def noun(rng: Random, fact: Fact) -> str:
    return say(rng, NOUNS[fact.kind], **fact.slots)


def corrigible(rng: Random) -> Fact:
    kind = rng.choice(memory.MAIN_KINDS) if rng.random() < 0.6 else rng.choice(PLAIN)
    return memory.make_fact(rng, kind)


def changed(rng: Random, fact: Fact) -> Fact:
    """The same with another value."""
    while True:
        other = replace(fact, value=memory.make_fact(rng, fact.kind).value)
        if other.value.casefold() != fact.value.casefold():
            return other


def correction(rng: Random, old: Fact, new: Fact) -> str:
    slots = {"v": new.value, "old": old.value}
    own = texts()["kind"].get(new.kind)
    if own and rng.random() < 0.3:
        return capital(say(rng, own, k=new.key, **slots))
    if rng.random() < 0.45:
        told = say(rng, memory.kinds()[new.kind]["tell"], thing="bag", **new.slots)
        told = memory.reworded(rng, told, new)
        text = say(rng, texts()["again"], t=told, t0=uncapital(told), c=rng.choice(",,:."), **slots)
        return capital(text)
    return capital(say(rng, texts()["instead"], n=noun(rng, new), **slots))


def correct(rng: Random, distract: Distract) -> Copying:
    """Something is told, put right (once or twice) and asked for."""
    facts = [corrigible(rng)]
    while rng.random() < 0.45 and len(facts) < 4:
        other = corrigible(rng)
        if all((other.kind, other.key) != (each.kind, each.key) for each in facts):
            facts.append(other)
    turns = memory.telling(rng, facts, distract)
    values = [fact.value for fact in facts]
    old = new = facts[rng.randrange(len(facts))]
    for _ in range(rng.choice((1, 1, 1, 2))):
        turns += pause(rng, [*facts, new], distract)
        old, new = new, changed(rng, new)
        asked = correction(rng, old, new)
        turns.append((asked, corrected(rng, old, new)))
        values.append(new.value)
    turns += pause(rng, [*facts, new], distract)
    known = [new if (f.kind, f.key) == (new.kind, new.key) else f for f in facts]
    turns += questions(rng, known, first=new)
    if rng.random() < 0.3:
        said = say(rng, texts()["said_before"], v=new.value, old=old.value)
        turns.append((say(rng, texts()["before"]), said))
        turns.append((memory.ask(rng, new), memory.answer(rng, new)))
    return turns, values


def corrected(rng: Random, old: Fact, new: Fact) -> str:
    slots = {"v": new.value, "old": old.value}
    return say(rng, texts()["corrected"], a=memory.answer(rng, new), **slots)


def slip(rng: Random, distract: Distract) -> Copying:
    """The wrong word and the right one in the same message."""
    old = corrigible(rng)
    new = changed(rng, old)
    told = memory.tell(rng, old).rstrip(".!?") + rng.choice((".", "...", ","))
    asked = say(rng, texts()["slip"], t=told, v=new.value, old=old.value)
    turns = [
        (asked, corrected(rng, old, new) if rng.random() < 0.5 else memory.acknowledge(rng, new))
    ]
    turns += pause(rng, [new], distract)
    return turns + questions(rng, [new], first=new), [old.value, new.value]


def pause(rng: Random, known: list[Fact], distract: Distract) -> list[Turn]:
    turns: list[Turn] = []
    for _ in range(rng.choice(GAPS)):
        if memory.num_words(turns) > memory.MAX_WORDS // 2:
            break
        turns += memory.elsewhere(rng, known, distract)
    return turns


def questions(rng: Random, known: list[Fact], *, first: Fact) -> list[Turn]:
    """The first fact, then some of the others, straight or with yes or no."""
    others = [fact for fact in known if fact is not first]
    asked = [first, *rng.sample(others, len(others))]
    turns = []
    for fact in asked:
        is_checked = fact.kind in NOUNS and rng.random() < 0.15
        turns.append(
            check(rng, fact) if is_checked else (memory.ask(rng, fact), memory.answer(rng, fact))
        )
    return turns


def check(rng: Random, fact: Fact) -> Turn:
    """Whether it is this: yes, or no and what it is."""
    is_so = rng.random() < 0.5
    shown = fact if is_so else changed(rng, fact)
    named, answered = noun(rng, fact), memory.answer(rng, fact)
    slots = {"v": fact.value, "w": shown.value}
    own = texts()["check_kind"].get(fact.kind)
    if own and rng.random() < 0.5:
        asked = say(rng, own, k=fact.key, **slots)
    else:
        asked = say(rng, texts()["check"], n=named, **slots)
    reply = say(rng, texts()["yes" if is_so else "no"], n=for_you(named), a=answered, **slots)
    return capital(asked), reply


def confirm(rng: Random, distract: Distract) -> Copying:
    """Facts are told; then yes or no about them, and straight questions in between."""
    facts = [fact for fact in memory.pick_facts(rng, rng.choice((1, 2, 3))) if fact.kind in NOUNS]
    facts = facts or [corrigible(rng)]
    turns = memory.telling(rng, facts, distract) + pause(rng, facts, distract)
    for _ in range(rng.choice((1, 2, 3))):
        turns.append(check(rng, rng.choice(facts)))
    fact = rng.choice(facts)
    turns.append((memory.ask(rng, fact), memory.answer(rng, fact)))
    return turns, [fact.value for fact in facts]


# Kinds with a key, and whose key is exchanged for a near miss.
KEYED = (
    "pet", "pet", "pet", "relative", "relative", "relative", "thing_colour", "thing_place", "day",
    "thing_name", "relative_place", "relative_job", "relative_instrument", "relative_pet",
    "called_by", "kept_in", "team",
)  # fmt: skip
# What is asked for when something else of the user was told, and what that is.
OTHER_NOUNS = (
    "my surname", "my last name", "my middle name", "my birthday", "my phone number", "my shoe size",
    "my favorite book", "my favorite film", "my favorite song", "my favorite number",
    "my favorite food", "my favorite animal", "my favorite color", "my favorite season",
    "my boss's name", "my mother's name", "my father's name", "my sister's name",
    "my brother's name", "my teacher's name", "my neighbor's name", "my wife's name",
    "the name of my street", "my address", "my email address", "my job", "my age", "my home town",
    "the name of my school", "the name of my best friend", "my dog's name", "my cat's name",
    "my horse's name", "the color of my car", "the color of my house", "my weight", "my height",
)  # fmt: skip
WHOLE = {
    "name": "your name", "pet": "the name of your {k}", "colour": "your favorite color",
    "place": "where you live", "job": "your job", "food": "your favorite food", "age": "your age",
    "relative": "the name of your {k}", "thing_colour": "the color of your {k}",
    "thing_place": "where your {k} is", "day": "when your {k} is",
    "thing_name": "the name of your {k}", "drink": "your favorite drink",
    "relative_place": "where your {k} lives", "relative_job": "the job of your {k}",
}  # fmt: skip


# A fact of the user, and the same of somebody near them.
THEIRS = {
    "name": "relative", "place": "relative_place", "colour": "relative_colour",
    "food": "relative_likes", "job": "relative_job", "instrument": "relative_instrument",
    "pet": "relative_pet",
}  # fmt: skip
OF_OTHERS = {
    "relative": "my {k}'s name", "relative_place": "where my {k} is",
    "relative_colour": "which color my {k} likes", "relative_likes": "what my {k} likes to eat",
    "relative_job": "the job of my {k}", "relative_instrument": "which instrument my {k} plays",
    "relative_pet": "the name of my {k}'s pet",
}  # fmt: skip


def known_as(rng: Random, fact: Fact) -> str:
    return say(rng, WHOLE.get(fact.kind, "what you told me"), **fact.slots)


def near_miss(rng: Random, distract: Distract) -> Copying:
    """Told of one, asked for another like it, and for the one that was told."""
    facts = [memory.make_fact(rng, rng.choice(KEYED))]
    while rng.random() < 0.4 and len(facts) < 4:
        other = memory.make_fact(rng, rng.choice(KEYED + PLAIN))
        if all((other.kind, other.key) != (each.kind, each.key) for each in facts):
            facts.append(other)
    turns = memory.telling(rng, facts, distract) + pause(rng, facts, distract)
    asked = [missed(rng, facts) for _ in range(rng.choice((1, 1, 2)))]
    asked += [(memory.ask(rng, f), memory.answer(rng, f)) for f in facts]
    rng.shuffle(asked)
    return turns + asked, [fact.value for fact in facts]


def missed(rng: Random, facts: list[Fact]) -> Turn:
    """A question for what was not told, as near as can be to what was."""
    if rng.random() < 0.25:
        return unknown.own(rng), say(rng, table("memory")["unknown_thing"])
    near = [fact for fact in facts if fact.key]
    pick = rng.random()
    theirs = [fact for fact in facts if fact.kind in THEIRS]
    if theirs and rng.random() < 0.35:
        return of_somebody(rng, rng.choice(theirs), facts)
    if near and pick < 0.6:
        told = rng.choice(near)
        wording = memory.kinds()[told.kind]
        keys = {fact.key for fact in facts if fact.kind == told.kind}
        other = told
        while other.key in keys:
            other = replace(told, key=value(rng, wording["key"]))
        nouns = wording.get("noun")
        named = say(rng, nouns, **other.slots) if nouns else None
        reply = miss_reply(rng, named, told)
        if named and rng.random() < 0.4:
            return say(rng, table("memory")["wrap_noun"], n=named), reply
        return memory.ask_by_key(rng, other), reply
    kinds = {fact.kind for fact in facts}
    if pick < 0.85 and kinds != {"name"}:
        kind = rng.choice([k for k in ("name", "place", "age", "job", "colour") if k not in kinds])
        other = memory.make_fact(rng, kind)
        return memory.ask_by_key(rng, other), miss_reply(rng, noun(rng, other), rng.choice(facts))
    told_nouns = {say(rng, NOUNS.get(f.kind, "-"), **f.slots) for f in facts}
    told_nouns |= {f"my {f.key}'s name" for f in facts} | {
        f"the {f.kind} of my {f.key}" for f in facts
    }
    free = [n for n in OTHER_NOUNS if n not in told_nouns and not _is_told(n, facts)]
    named = rng.choice(free)
    return say(rng, table("memory")["wrap_noun"], n=named), miss_reply(
        rng, named, rng.choice(facts)
    )


def of_somebody(rng: Random, own: Fact, facts: list[Fact]) -> Turn:
    """Asked of somebody else what the user told of themselves."""
    taken = {fact.key for fact in facts if fact.kind == THEIRS[own.kind]}
    while True:
        other = memory.make_fact(rng, THEIRS[own.kind])
        if other.key not in taken:
            break
    return memory.ask_by_key(rng, other), miss_reply(
        rng, say(rng, OF_OTHERS[other.kind], **other.slots), own
    )


def _is_told(named: str, facts: list[Fact]) -> bool:
    words = named.split()
    return any(
        f.kind in words or (f.key and f.key in named) or (f.kind == "colour" and "color" in words)
        or (f.kind == "place" and ("town" in words or "address" in words or "street" in words))
        for f in facts
    )  # fmt: skip


def miss_reply(rng: Random, named: str | None, told: Fact) -> str:
    if named is None:
        return say(rng, table("memory")["unknown_thing"])
    return say(rng, texts()["miss"], n=for_you(named), known=known_as(rng, told))
