"""Conversations of a small assistant, made from templates: endless, and the same for a seed.

Each module knows one skill; this one mixes them, strings several together, and writes as people
do, with small letters, missing full stops and slips of the finger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from training.generator import (
    arithmetic,
    geography,
    knowledge,
    language,
    memory,
    stories,
    talk,
    texts,
    unknown,
)
from training.generator.grammar import Turn, capital, table

Message = dict[str, str]
Maker = Callable[[Random], list[Turn]]

# What a conversation begins with, and how often in a hundred.
SKILLS: dict[Maker, float] = {
    arithmetic.exercise: 12,
    geography.question: 11,
    knowledge.question: 6,
    knowledge.animal: 3.5,
    knowledge.opposite: 1,
    unknown.question: 8,
    memory.untold: 2,
    stories.tell: 12,
    talk.small_talk: 7,
    talk.identity: 2.5,
    talk.decline: 1,
    talk.about_a_topic: 1,
    texts.explain: 5,
    texts.person: 2,
    texts.advice: 2.5,
    texts.recipe: 0.6,
    texts.fun: 2,
    texts.poem: 0.8,
    texts.listing: 2.5,
    language.word: 2.5,
    language.definition: 2,
    language.sentence: 2.5,
    language.reading: 3,
    language.follow_up: 2,
}
FOLDER = Path(__file__).parent
MEMORY_SHARE = 0.28
EASY_MEMORY_SHARE = 0.7  # at the beginning of a training
# Between two turns about something else: short ones, so that thirty fit into a row.
DISTRACTIONS: dict[Maker, float] = {
    arithmetic.exercise: 20,
    geography.question: 20,
    knowledge.question: 12,
    knowledge.animal: 6,
    talk.small_talk: 16,
    talk.identity: 2,
    unknown.question: 8,
    texts.fun: 4,
    texts.listing: 3,
    texts.explain: 4,
    texts.advice: 3,
    language.sentence: 2,
    language.word: 3,
    language.reading: 4,
    knowledge.opposite: 2,
    stories.tell: 5,  # whose heroes have names, which are not the user's
}
MAX_TURNS = 10  # of a conversation that is not about memory


def conversations(seed: str, count: int, *, ease: float = 0.0) -> list[list[Message]]:
    """`count` conversations, as lists of messages; the same for the same seed and ease.

    Where `ease` is more than 0, up to 1, more of them are about memory, and so many of these ask
    soon after telling: copying is learnt from near before it is learnt from far.
    """
    rng = Random(seed)
    return [conversation(rng, ease) for _ in range(count)]


def conversation(rng: Random, ease: float = 0.0) -> list[Message]:
    """A reply that repeats what the user told has the values in "told", a line each."""
    facts: list[memory.Fact] = []
    if rng.random() < MEMORY_SHARE + ease * (EASY_MEMORY_SHARE - MEMORY_SHARE):
        turns, facts = memory.conversation(rng, distraction, is_short=rng.random() < ease)
    else:
        turns = _several(rng)
    values = [fact.value for fact in facts]
    messages = []
    if rng.random() < 0.12:
        messages.append({"role": "system", "content": rng.choice(table("talk")["systems"])})
    # "You asked: …" quotes the user word for word.
    is_quoted = any(reply.startswith("You asked") for _, reply in turns)
    for user, reply in turns:
        asked = user if is_quoted else as_typed(rng, user, values)
        messages.append({"role": "user", "content": asked.strip()})
        messages.append(_reply(reply, values))
    return messages


def _reply(reply: str, values: list[str]) -> Message:
    message = {"role": "assistant", "content": capital(reply.strip())}
    said = reply.casefold()
    told = [value for value in values if value.casefold() in said]
    return {**message, "told": "\n".join(told)} if told else message


def distraction(rng: Random) -> list[Turn]:
    return _pick(rng, DISTRACTIONS)(rng)[:2]


def _several(rng: Random) -> list[Turn]:
    """One skill, in three of ten cases followed by others; polite words around it at times."""
    turns = _pick(rng, SKILLS)(rng)
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            turns = turns + _pick(rng, SKILLS if len(turns) < 3 else DISTRACTIONS)(rng)
    if rng.random() < 0.15:
        turns = [talk.greeting(rng), *turns]
    if rng.random() < 0.1:
        turns = [*turns, talk.thanks(rng)]
    if rng.random() < 0.05:
        turns = [*turns, talk.goodbye(rng)]
    return turns[:MAX_TURNS]


def _pick(rng: Random, makers: dict[Maker, float]) -> Maker:
    return rng.choices(list(makers), list(makers.values()))[0]


COMMANDS = (
    "Tell", "Give", "Write", "Name", "List", "Explain", "Define", "Make", "Describe", "Spell",
    "Correct", "Sort", "Count",
)  # fmt: skip


def as_typed(rng: Random, text: str, exact: Sequence[str] = ()) -> str:
    """The text as somebody in a hurry may type it; who is told a word of `exact` has to repeat
    it, so there a slip of the finger would teach to misspell.
    """
    pick = rng.random()
    names_are_safe = not any(letter.isupper() for letter in re.sub(r"\bI\b", "", text[1:]))
    if pick < 0.06 and names_are_safe:
        return text.lower()
    if pick < 0.13 and text[-1:] in "?.!" and len(text) > 4:
        return text[:-1]
    if pick < 0.16 and text[-1:] in "?." and names_are_safe:
        return text[:-1].lower()
    if pick < 0.19 and text.startswith(COMMANDS):
        return f"Please {text[:1].lower()}{text[1:]}"
    if pick < 0.205 and text.startswith(COMMANDS) and text.endswith("."):
        return f"Can you {text[:1].lower()}{text[1:-1]}?"
    if pick < 0.22 and len(text) > 12 and text[1:].islower() and not any(c.isdigit() for c in text):
        is_exact = any(word.casefold() in text.casefold() for word in exact)
        return text if is_exact else _slip(rng, text)
    return text


def _slip(rng: Random, text: str) -> str:
    """One letter left out, or two in the wrong order."""
    i = rng.randrange(1, len(text) - 1)
    if rng.random() < 0.5:
        return text[:i] + text[i + 1 :]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
