"""Facts that are hidden in a chronicle, and the questions for them.

Each says where somebody lives. The people are nobody's and the chronicle names none, so an answer
comes from what was read or is a guess. A guess is right once in as many times as there are towns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from falcon_mamba_app.lab.texts import sentences

TITLE = "The chronicle of a village"
PEOPLE = (
    *("Agnes", "Bela", "Clemens", "Dora", "Edgar", "Farid", "Greta", "Hamid", "Ines", "Jonas"),
    *("Kira", "Leon", "Mira", "Nadia", "Oskar", "Petra", "Quentin", "Rosa", "Selim", "Tilda"),
    *("Ursula", "Viktor", "Wanda", "Xenia", "Yusuf", "Zelda", "Anton", "Bruno", "Carla", "Dimitri"),
)
TOWNS = (
    *("Lisbon", "Oslo", "Cairo", "Lima", "Delhi", "Paris", "Rome", "Vienna", "Prague", "Dublin"),
    *("Athens", "Madrid", "Berlin", "Warsaw", "Tokyo", "Seoul", "Hanoi", "Dakar", "Nairobi"),
    *("Havana", "Quito", "Bogota", "Chicago", "Boston", "Denver", "Sydney", "Perth", "Zagreb"),
    *("Riga", "Tunis", "Naples", "Geneva", "Munich", "Lagos", "Accra", "Bergen", "Porto"),
    *("Venice", "Toronto", "Dallas"),
)
CHANCE = 1 / len(TOWNS)
MAX_FACTS = len(PEOPLE)


@dataclass(frozen=True, slots=True)
class Fact:
    """Where somebody lives."""

    person: str
    town: str

    @property
    def sentence(self) -> str:
        return f"{self.person} lives in {self.town}."

    @property
    def question(self) -> str:
        return f"Where does {self.person} live?"

    @property
    def beginning(self) -> str:
        """The question with the answer begun, for a model that continues texts."""
        return f"\n\nQuestion: {self.question}\nAnswer: {self.person} lives in"

    def is_told_by(self, reply: str) -> bool:
        """Whether the reply names this town and no other."""
        named = {town for town in TOWNS if re.search(rf"\b{town}\b", reply)}
        return named == {self.town}


@dataclass(frozen=True, slots=True)
class Filler:
    """A chronicle with facts in it, one for each depth."""

    text: str
    facts: tuple[Fact, ...]


def facts_of(seed: str, number: int) -> tuple[Fact, ...]:
    """This many facts of different people in different towns; a seed gives the same ones."""
    random = Random(f"facts {seed}")
    people, towns = random.sample(PEOPLE, number), random.sample(TOWNS, number)
    return tuple(Fact(person, town) for person, town in zip(people, towns, strict=True))


def filler_of(
    seed: str, num_tokens: int, depths: Sequence[float], count: Callable[[str], int]
) -> Filler:
    """About so many tokens of chronicle, to within a sentence. A fact of depth 0 stands first, one
    of depth 1 last. `count` tells the tokens of a sentence.
    """
    facts = facts_of(seed, len(depths))
    room = num_tokens - sum(count(f" {fact.sentence}") for fact in facts)
    waiting = sorted(zip(depths, facts, strict=True), key=lambda pair: pair[0])
    told: list[str] = []
    num_told = 0
    for sentence, length in _within(room, sentences(seed), count):
        while waiting and num_told >= waiting[0][0] * room:
            told.append(waiting.pop(0)[1].sentence)
        told.append(sentence)
        num_told += length
    told += [fact.sentence for _, fact in waiting]
    return Filler(" ".join(told), facts)


def _within(
    room: int, endless: Iterable[str], count: Callable[[str], int]
) -> Iterator[tuple[str, int]]:
    """As many sentences as fit, each with its tokens."""
    for sentence in endless:
        length = count(f" {sentence}")
        room -= length
        if room < 0:
            return
        yield sentence, length
