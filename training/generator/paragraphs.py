"""Paragraphs put together from facts, and questions whose answers stand in them.

A relation of paragraphs.json says one thing in several ways and knows what may be asked about it.
Names, towns and words are mostly invented: what is asked for can only be copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from training.generator.grammar import capital, framed, say, table
from training.generator.handed import Asked, dialogue
from training.generator.memory import Fact, blurred
from training.generator.revisions import Copying
from training.generator.wording import reworded, words_of
from training.generator.words import invented, name, place, unheard, value

Slots = dict[str, str]
PRONOUNS = ("He", "She")
REWORDED, BLURRED, QUOTED = 0.45, 0.15, 0.35  # of the sentences, questions and replies
VERB_SLOTS = frozenset(("v", "v2", "ved"))  # forms of verbs, filled together


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as the text says it."""

    relation: int
    slots: Slots
    sentence: str


def texts() -> Any:
    return table("paragraphs")


def number(rng: Random) -> str:
    return str(rng.choice((rng.randrange(2, 13), rng.randrange(2, 100), rng.randrange(13, 1000))))


def draw(rng: Random, slot: str) -> str:
    """A value for a slot of paragraphs.json."""
    words, pools = table("words"), texts()["pools"]
    if slot in ("p", "q"):
        if rng.random() < 0.3:
            return f"{rng.choice(words['girls'] + words['boys'])} {rng.choice(words['surnames']) if rng.random() < 0.4 else unheard(rng)}"
        return name(rng)
    if slot in ("t", "u"):
        return place(rng)
    if slot in ("w", "z"):
        return invented(rng) if rng.random() < 0.6 else unheard(rng)
    if slot == "o":
        things = table("stories")
        return f"{rng.choice(things['object_adjectives'])} {rng.choice(things['object_nouns'])}"
    if slot in ("r", "s"):
        return str(rng.choice(nouns()))
    simple: dict[str, Callable[[], str]] = {
        "y": lambda: str(rng.randrange(1100, 2030)),
        "n": lambda: number(rng),
        "N": lambda: str(rng.randrange(1000, rng.choice((10_000, 100_000, 1_000_000)))),
        "h": lambda: rng.choice("six seven eight nine ten eleven five four three two".split() + [str(i) for i in range(1, 13)]),
        "d": lambda: value(rng, "day"),
        "mo": lambda: rng.choice(table("knowledge")["months"]),
        "f": lambda: value(rng, "food"),
        "food2": lambda: value(rng, "food"),
        "e": lambda: value(rng, "day"),
        "g": lambda: rng.choice("six seven eight nine ten eleven twelve".split()),
        "a": lambda: value(rng, "animal"),
        "c": lambda: value(rng, "colour"),
        "k": lambda: value(rng, "pet"),
        "j": lambda: value(rng, "job"),
        "on": lambda: rng.choice((rng.choice(pools["on_n"]), f"{rng.choice(('old', 'new', 'small', 'big', 'second', 'main', 'third', 'left'))} {rng.choice(pools['on_n'])}")),
    }  # fmt: skip
    made = simple[slot]() if slot in simple else rng.choice(pools[slot])
    return str(made)


@cache
def nouns() -> list[str]:
    """Some thousands of nouns that can be counted, more or less: words to be matched, not known."""
    listed = [word for word, sort, _ in table("glosses") if sort == "n"]
    return sorted(
        {word for word in listed if word.isalpha() and word.islower() and word[-1] != "s"}
    )


SHARED = ("b", "t", "p", "q", "ev", "w", "on", "o")  # what several sentences of a text speak of


class Scene:
    """The people, places and things that a text speaks of: two or three of each sort."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._casts = {
            slot: [draw(rng, slot) for _ in range(rng.choice((1, 2, 2, 3)))] for slot in SHARED
        }
        self._genders: dict[str, str] = {}

    def fill(self, wanted: set[str]) -> Slots:
        """Values for the slots, different where two are of one sort."""
        slots: Slots = {}
        for slot in sorted(wanted - VERB_SLOTS):
            while True:
                cast = self._casts.get(slot)
                made = (
                    self._rng.choice(cast)
                    if cast and self._rng.random() < 0.7
                    else draw(self._rng, slot)
                )
                if made not in slots.values():
                    break
            slots[slot] = made
        if "v" in wanted:
            (slots["v"], slots["ved"]), (slots["v2"], _) = self._rng.sample(
                texts()["pools"]["verbs"], 2
            )
        if "o" in slots:
            slots |= {"a_o": f"a {slots['o']}"}
        if "f" in slots:
            slots |= {"f_cap": capital(slots["f"])}
        return slots

    def pronoun(self, person: str) -> str:
        return self._genders.setdefault(person, self._rng.choice(PRONOUNS))


@cache
def needs(relation: int) -> frozenset[str]:
    """The slots of a relation."""
    entry = texts()["relations"][relation]
    written = " ".join([*entry["say"], *(part for ask in entry["ask"] for part in ask[:2])])
    found = {
        slot[0].lower() + slot[1:] if slot not in ("N",) else slot
        for slot in re.findall(r"\{(\w+)\}", written)
    }
    found = {{"a_o": "o", "f_cap": "f", "v2": "v", "ved": "v"}.get(slot, slot) for slot in found}
    return frozenset(found)


@cache
def question_words(relation: int) -> frozenset[str]:
    return frozenset(
        question
        for ask in texts()["relations"][relation]["ask"]
        for question in _alternatives(ask[0])
    )


@cache
def _alternatives(template: str) -> tuple[str, ...]:
    """A template's wordings, parted by bars that are outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(template):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append(template[start:i])
            start = i + 1
    return (*parts, template[start:])


@cache
def of_any_words() -> tuple[int, ...]:
    """The relations whose nouns and verbs are any: only matching words with words helps there."""
    everything = range(len(texts()["relations"]))
    return tuple(i for i in everything if needs(i) & {"r", "s", "v"})


def any_relation(rng: Random) -> int:
    if rng.random() < 0.5:
        return rng.choice(of_any_words())
    return rng.randrange(len(texts()["relations"]))


def facts(rng: Random, scene: Scene, count: int) -> list[Told]:
    """Different facts of one scene, of which no two answer the same question."""
    told: list[Told] = []
    used: list[tuple[int, Slots]] = []
    for _ in range(count * 4):
        if len(told) == count:
            break
        again = told and rng.random() < 0.3
        relation = rng.choice(told).relation if again else any_relation(rng)
        slots = scene.fill(set(needs(relation)))
        if any(_collide(relation, slots, *other) for other in used):
            continue
        used.append((relation, slots))
        template = rng.choice(texts()["relations"][relation]["say"])
        sentence = capital(say(rng, template, **slots))
        if rng.random() < REWORDED:
            sentence = reworded(rng, sentence, 0.35, kept_in(slots))
        told.append(Told(relation, slots, sentence))
    return told


def _collide(relation: int, slots: Slots, other: int, others: Slots) -> bool:
    if relation != other:
        return bool(question_words(relation) & question_words(other))
    # The same sort of fact again must be about others in everything.
    return bool(set(slots.values()) & set(others.values())) or any(
        "{" not in q for q in question_words(relation)
    )


def prose(rng: Random, scene: Scene, told: list[Told]) -> str:
    """The sentences in a row; who was the only one in the sentence before may be "she" or "it"."""
    sentences: list[str] = []
    for before, fact in zip([None, *told], told, strict=False):
        text = fact.sentence
        if before and rng.random() < 0.4:
            text = _with_pronoun(scene, before, text)
        if before and rng.random() < 0.2:
            joint = rng.choice((", and ", " and ", "; ", ", while ", ", but ", ", so "))
            sentences[-1] = f"{sentences[-1].rstrip('.')}{joint}{_low(text)}"
            continue
        sentences.append(text)
    return " ".join(sentences)


def _low(sentence: str) -> str:
    """For the middle of a sentence: names keep their capitals."""
    first = sentence.split(" ", 1)[0]
    return sentence[:1].lower() + sentence[1:] if first in OPENING else sentence


OPENING = frozenset(
    "The It He She In A An From Because For To They At After You There People Visitors With What"
    " Since Never Please First Everybody On Under Near Behind Beside Next Somebody Nobody".split()
)


def _with_pronoun(scene: Scene, before: Told, text: str) -> str:
    person, building = before.slots.get("p"), f"The {before.slots.get('b')} "
    if person and "q" not in before.slots and text.startswith(f"{person} "):
        return scene.pronoun(person) + text[len(person) :]
    if "b" in before.slots and "w" not in before.slots and text.startswith(building):
        return f"It {text[len(building) :]}"
    return text


def kept_in(slots: Slots) -> frozenset[str]:
    return words_of(" ".join(slots.values()))


def ask(rng: Random, told: Told) -> Asked:
    """Every third reply is the sentence of the text, which is right for any good question."""
    question, reply, slot = rng.choice(texts()["relations"][told.relation]["ask"])
    asked = capital(say(rng, rng.choice(_alternatives(question)), **told.slots))
    if rng.random() < REWORDED:
        asked = reworded(rng, asked, rng.choice((0.3, 0.6, 0.9)), kept_in(told.slots))
    if rng.random() < BLURRED:
        asked = blurred(rng, asked, Fact("", " ".join(told.slots.values()), told.slots[slot]))
    said = capital(say(rng, rng.choice(_alternatives(reply)), **told.slots))
    if rng.random() < QUOTED and told.slots[slot].casefold() in told.sentence.casefold():
        said = framed(rng, table("excerpts")["quoted"], s=told.sentence)
    return Asked(asked, said, told.slots[slot])


def ask_missing(rng: Random, scene: Scene, told: list[Told]) -> Asked:
    """A question about the same people and places that the text does not answer."""
    there = {fact.relation for fact in told}
    known = frozenset().union(*(question_words(each) for each in there))
    while True:
        relation = rng.randrange(len(texts()["relations"]))
        if relation not in there and not question_words(relation) & known:
            break
    question = rng.choice(texts()["relations"][relation]["ask"])[0]
    asked = capital(
        say(rng, rng.choice(_alternatives(question)), **scene.fill(set(needs(relation))))
    )
    return Asked(asked, say(rng, texts()["pools"]["not_there"]), "")


def reading(rng: Random, *, sizes: tuple[int, ...] = (1, 1, 2, 2, 3, 3, 4, 5, 6, 8)) -> Copying:
    """A paragraph and questions about it, in the same message or afterwards."""
    scene = Scene(rng)
    told = facts(rng, scene, rng.choice(sizes))
    text = prose(rng, scene, told)
    asked = questions(rng, scene, told, rng.choice((1, 2, 2, 3, 4)))
    turns, values = dialogue(rng, text, asked)
    if rng.random() < 0.1:
        first = told[0].sentence
        turns.append((say(rng, texts()["pools"]["summary_ask"]), first))
    return turns, values


def questions(rng: Random, scene: Scene, told: list[Told], count: int) -> list[Asked]:
    asked = [ask(rng, each) for each in rng.sample(told, min(count, len(told)))]
    if rng.random() < 0.2:
        asked.insert(rng.randrange(len(asked) + 1), ask_missing(rng, scene, told))
    return asked
