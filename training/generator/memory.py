"""Conversations in which the user tells something and asks for it later, up to sixty turns on.

The wordings are put together from parts, so that hardly any repeats; between telling and asking
come turns about other things. What was never told is asked for too: the answer is that it is
not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training.generator.grammar import Turn, capital, for_you, say, table, uncapital, with_articles
from training.generator.words import any_words, value

MAX_WORDS = 2_000  # of a conversation: below 4,096 tokens
MAIN_KINDS = ("name", "name", "pet", "colour", "place")
# Turns between what is told and the questions for it.
GAPS = (0, 0, 0, 1, 2, 3, 4, 5, 8, 12, 16, 20, 24, 28, 40, 56, 60)
SHORT_GAPS = (0, 0, 0, 0, 1, 2)
BLURRED = 0.3  # of the wordings
REWORDED = 0.2  # of the words that have a synonym
ABOUT_THE_USER = ("know me", "remember me", "who i am")

Distract = Callable[[Random], list[Turn]]


@dataclass(slots=True)
class Fact:
    """Something the user may tell: of which kind, about what (a pet's sort, a relative), which."""

    kind: str
    key: str
    value: str

    @property
    def slots(self) -> dict[str, str]:
        return {"v": self.value, "k": self.key}


def kinds() -> dict[str, Any]:
    found: dict[str, Any] = table("memory")["kinds"]
    return found


def make_fact(rng: Random, kind: str) -> Fact:
    wording = kinds()[kind]
    key = value(rng, wording["key"]) if "key" in wording else ""
    return Fact(kind, key, value(rng, wording["pool"]))


def pick_facts(rng: Random, count: int) -> list[Fact]:
    """Different facts, one of the four main kinds among them more often than not."""
    names = list(kinds())
    facts: list[Fact] = []
    while len(facts) < count:
        kind = rng.choice(MAIN_KINDS if rng.random() < 0.55 else names)
        fact = make_fact(rng, kind)
        if all((fact.kind, fact.key) != (other.kind, other.key) for other in facts):
            facts.append(fact)
    return facts


def tell(rng: Random, fact: Fact) -> str:
    thing = rng.choice(table("words")["owned_things"])
    told = say(rng, kinds()[fact.kind]["tell"], thing=thing, **fact.slots)
    told = reworded(rng, told, fact)
    if rng.random() < BLURRED:
        told = blurred(rng, told, fact)
    return say(rng, table("memory")["wrap_tell"], t=told, c=rng.choice((",", ".", "!")))


def reworded(rng: Random, text: str, fact: Fact) -> str:
    """The text with some of its words replaced by others of nearly the same meaning."""
    synonyms, kept = table("memory")["synonyms"], _words_of(fact)

    def other(found: re.Match[str]) -> str:
        word = found[0]
        instead = synonyms.get(word.casefold())
        if instead is None or word.casefold() in kept or rng.random() > REWORDED:
            return word
        chosen = rng.choice(instead.split("|"))
        return capital(chosen) if word[0].isupper() else chosen

    return with_articles(re.sub(r"[A-Za-z]+", other, text))


def _words_of(fact: Fact) -> set[str]:
    return set(re.findall(r"\w+", f"{fact.value} {fact.key}".casefold()))


def blurred(rng: Random, text: str, fact: Fact) -> str:
    """The text with words that do not fit in place of some, as new wordings seem to a model that
    has met few: what is left of it, and the fact itself, must be enough.
    """
    kept = _words_of(fact)
    words: list[str] = []
    for word in text.split(" "):
        pick, is_kept = rng.random(), any(each in word.casefold() for each in kept)
        if is_kept or pick > 0.20:
            words.append(word)
        elif pick < 0.13:
            words.append(rng.choice(any_words()))
        elif pick < 0.16:
            words += [rng.choice(any_words()), word]
    return capital(" ".join(words)) or text


def ask(rng: Random, fact: Fact, *, may_blur: bool = False) -> str:
    """A question for the fact: straight, by its name, or within another sentence."""
    question = reworded(rng, _clear_question(rng, fact), fact)
    return blurred(rng, question, fact) if may_blur and rng.random() < BLURRED else question


def _clear_question(rng: Random, fact: Fact) -> str:
    wording, texts, pick = kinds()[fact.kind], table("memory"), rng.random()
    thing = rng.choice(table("words")["owned_things"])
    if pick < 0.5 or "noun" not in wording:
        question = say(rng, wording["ask"], thing=thing, **fact.slots)
        return say(rng, texts["wrap_ask"], q=question, q0=uncapital(question))
    if pick < 0.78:
        return say(rng, texts["wrap_noun"], n=say(rng, wording["noun"], **fact.slots))
    return say(rng, texts["wrap_embedded"], e=say(rng, wording["embedded"], **fact.slots))


def ask_by_key(rng: Random, fact: Fact) -> str:
    """A question that says whose or which, as is needed where there may be another."""
    while True:
        asked = ask(rng, fact)
        if fact.key.casefold() in asked.casefold():
            return asked


def acknowledge(rng: Random, fact: Fact) -> str:
    """In every second case without the value: then nothing but what the user said tells it."""
    if rng.random() < 0.55:
        return say(rng, table("memory")["ack"])
    return say(rng, kinds()[fact.kind]["greet"], **fact.slots)


def answer(rng: Random, fact: Fact) -> str:
    return say(rng, kinds()[fact.kind]["reply"], **fact.slots)


def not_told(rng: Random, known: list[Fact]) -> Turn:
    """A question for what was not told, often close to what was."""
    while True:
        fact = make_fact(rng, rng.choice(MAIN_KINDS if rng.random() < 0.6 else list(kinds())))
        if all((fact.kind, fact.key) != (other.kind, other.key) for other in known):
            break
    texts = table("memory")
    nouns = kinds()[fact.kind].get("noun")
    if nouns is None:
        return ask_by_key(rng, fact), say(rng, texts["unknown_thing"])
    noun = for_you(say(rng, nouns, **fact.slots))
    return ask_by_key(rng, fact), say(rng, texts["unknown"], n=noun)


def mention(rng: Random, known: list[Fact]) -> Turn:
    """The user speaks of somebody or something else, which must not be taken for their own."""
    values = {fact.value.casefold() for fact in known}
    while True:
        said, reply = rng.choice(table("memory")["mentions"])
        slots = {
            "n": value(rng, "name"), "m": value(rng, "name"), "r": value(rng, "relative"),
            "v": value(rng, "petname"), "k": value(rng, "pet"),
            "p": value(rng, "place"), "c": value(rng, "colour"),
        }  # fmt: skip
        if not any(each in slot.casefold() for each in values for slot in slots.values()):
            return say(rng, said, **slots), say(rng, reply, **slots)


def untold(rng: Random) -> list[Turn]:
    """The user asks for a fact of their own when nothing has been told."""
    return [not_told(rng, [])]


def in_one(rng: Random, sentences: list[str]) -> str:
    """Several sentences one after another, or as one: "I am Bo, and my dog is called Rex"."""
    if rng.random() < 0.4:
        return " ".join(sentences)
    first, *rest = [sentence.rstrip(".!") for sentence in sentences]
    for other in rest:
        first += rng.choice((" and ", ", and ", ", ", "; ", " but ")) + uncapital(other)
    return first + rng.choice((".", ".", "!", ""))


def telling(rng: Random, facts: list[Fact], distract: Distract) -> list[Turn]:
    """The turns in which the facts are told: one each, two in one, or along with a question."""
    turns: list[Turn] = []
    left = list(facts)
    while left:
        fact = left.pop()
        pick = rng.random()
        if pick < 0.24 and left:
            told = [fact, left.pop()]
            if left and pick < 0.05:
                told.append(left.pop())
            sentence = in_one(rng, [tell(rng, each) for each in told])
            turns.append((sentence, acknowledge(rng, rng.choice(told))))
        elif pick < 0.33:
            question, reply = distract(rng)[0]
            turns.append((f"{tell(rng, fact)} {question}", reply))
        else:
            turns.append((tell(rng, fact), acknowledge(rng, fact)))
    return turns


def conversation(
    rng: Random, distract: Distract, *, is_short: bool = False
) -> tuple[list[Turn], list[Fact]]:
    """A whole one, and what is told in it. Half of them are short, the others have up to sixty
    turns in between; `is_short` ones have two at most.
    """
    facts = pick_facts(rng, rng.choice((1, 1, 2, 2, 3, 4, 5, 6)))
    num_between = rng.choice(SHORT_GAPS if is_short else GAPS)
    turns = distract(rng) if rng.random() < 0.15 else []
    turns += telling(rng, facts, distract)
    known = list(facts)
    for _ in range(num_between):
        if num_words(turns) > MAX_WORDS:
            break
        turns += between(rng, known, distract)
    for fact in rng.sample(known, len(known)):
        turns.append((ask(rng, fact, may_blur=len(known) < 3), answer(rng, fact)))
    if rng.random() < 0.25:
        turns.insert(rng.randrange(len(turns) + 1), not_told(rng, known))
    return turns, known


def between(rng: Random, known: list[Fact], distract: Distract) -> list[Turn]:
    """A turn about something else; in two of five cases a fact is asked for or told."""
    pick = rng.random()
    if pick < 0.28:
        fact = rng.choice(known)
        return [(ask(rng, fact, may_blur=len(known) < 3), answer(rng, fact))]
    if pick < 0.37 and len(known) < 9:
        fact = make_fact(rng, rng.choice(list(kinds())))
        if all((fact.kind, fact.key) != (other.kind, other.key) for other in known):
            known.append(fact)
            return [(tell(rng, fact), acknowledge(rng, fact))]
    if pick < 0.40:
        return [not_told(rng, known)]
    if pick < 0.54:
        return [mention(rng, known)]
    return elsewhere(rng, known, distract)


def elsewhere(rng: Random, known: list[Fact], distract: Distract) -> list[Turn]:
    """A turn about something that cannot be taken for what is known."""
    for _ in range(20):
        turns = distract(rng)
        if not any(concerns(fact, said) for turn in turns for said in turn for fact in known):
            return turns
    return [mention(rng, known)]


def concerns(fact: Fact, asked: str) -> bool:
    """Whether a question about something else could be taken for one about the fact."""
    text = asked.casefold()
    if fact.value[:1].isupper() and re.search(rf"\b{re.escape(fact.value)}\b", asked):
        return True
    if fact.kind == "name" and any(phrase in text for phrase in ABOUT_THE_USER):
        return True
    return bool(fact.key) and f"my {fact.key}" in text


def num_words(turns: list[Turn]) -> int:
    return sum(len(user.split()) + len(reply.split()) for user, reply in turns)
