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
    contrasts,
    documents,
    excerpts,
    geography,
    interludes,
    introductions,
    knowledge,
    language,
    memory,
    oddities,
    paragraphs,
    playground,
    puzzles,
    reactions,
    retold,
    revisions,
    stories,
    structured,
    talk,
    texts,
    unknown,
)
from training.generator.grammar import Turn, capital, table
from training.generator.revisions import Copying
from training.generator.sources import Sources

Message = dict[str, str]
Maker = Callable[[Random], list[Turn]]

# What a conversation begins with, and how often in a hundred.
SKILLS: dict[Maker, float] = {
    arithmetic.exercise: 11,
    puzzles.question: 15,
    geography.question: 11,
    knowledge.question: 6,
    knowledge.animal: 3.5,
    knowledge.opposite: 1,
    unknown.question: 9,
    memory.untold: 3,
    stories.tell: 9,
    talk.small_talk: 7,
    reactions.chat: 7,
    talk.identity: 2.5,
    playground.question: 3,
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
    oddities.nonsense: 1.6,
    oddities.foreign: 1.6,
    oddities.code: 1.6,
    oddities.emoji_only: 0.8,
    oddities.refused: 1.8,
    oddities.not_learned: 2,
}
FOLDER = Path(__file__).parent
# Conversations whose replies repeat what was told or given, and how often in a hundred.
COPYING: dict[str, float] = {
    "memory": 62,
    "correct": 17,
    "slip": 1.5,
    "confirm": 5,
    "near miss": 9,
    "contrast": 24,
    "several": 8,
    "after a story": 6,
    "two people": 12,
    "list": 7,
    "json": 3.5,
    "paragraph": 64,
    "document": 12,
    "excerpt": 30,
    "asked by people": 26,
}
COPYING_SHARE = 0.64
EASY_COPYING_SHARE = 0.85  # at the beginning of a training
SMALL_LETTERS = 0.12  # of these, in which the user never types a capital
WITH_EMOJI = 0.05  # of all, in which the user adds pictures
# Between two turns about something else: short ones, so that thirty fit into a row.
DISTRACTIONS: dict[Maker, float] = {
    arithmetic.exercise: 20,
    geography.question: 20,
    knowledge.question: 12,
    knowledge.animal: 6,
    talk.small_talk: 14,
    reactions.chat: 14,
    puzzles.question: 5,
    playground.question: 2,
    oddities.nonsense: 0.7,
    oddities.foreign: 0.7,
    oddities.code: 0.7,
    oddities.emoji_only: 0.7,
    oddities.not_learned: 1.5,
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


def conversations(
    seed: str, count: int, *, ease: float = 0.0, sources: Sources | None = None
) -> list[list[Message]]:
    """`count` conversations, as lists of messages; the same for the same seed, ease and sources.

    Where `ease` is more than 0, up to 1, more of them are about what was told, and so many of these
    ask soon after telling: copying is learnt from near before it is learnt from far. Sources
    are real texts, and what people asked about some.
    """
    rng = Random(seed)
    return [conversation(rng, ease, sources) for _ in range(count)]


def conversation(rng: Random, ease: float = 0.0, sources: Sources | None = None) -> list[Message]:
    """A reply that repeats what was told or given before has the values in "told", a line each."""
    values: list[str] = []
    is_copying = rng.random() < COPYING_SHARE + ease * (EASY_COPYING_SHARE - COPYING_SHARE)
    if is_copying:
        turns, values = copying(rng, ease, sources)
    else:
        turns = _several(rng)
    has_emoji = rng.random() < WITH_EMOJI
    messages: list[Message] = []
    if rng.random() < 0.12:
        messages.append({"role": "system", "content": rng.choice(table("talk")["systems"])})
    # "You asked: …" quotes the user word for word.
    is_quoted = any(reply.startswith("You asked") for _, reply in turns)
    for user, reply in turns:
        asked = user if is_quoted or "\n" in user else as_typed(rng, user, values)
        if has_emoji and rng.random() < 0.6 and not is_quoted:
            asked = oddities.with_emoji(rng, asked)
        messages.append({"role": "user", "content": asked.strip()})
        messages.append(_reply(reply, values, messages))
    return messages


def copying(rng: Random, ease: float, sources: Sources | None) -> Copying:
    """A conversation in which something is told or given, and the values that replies repeat."""
    sort = rng.choices(list(COPYING), list(COPYING.values()))[0]
    if rng.random() < ease / 2:
        sort = "memory"
    if sources and sort == "excerpt":
        return excerpts.reading(rng, sources.excerpt)
    if sources and sort == "asked by people":
        return retold.reading(rng, sources.asked_by_people, sources.excerpt)
    turns, values = _own(rng, sort, ease, sources)
    if rng.random() < SMALL_LETTERS:
        turns = [in_small_letters(rng, turn, values) for turn in turns]
        values = [value.lower() for value in values]
    return turns, values


def _own(rng: Random, sort: str, ease: float, sources: Sources | None) -> Copying:
    """Of the generator's own sentences; where there are no sources, of these instead of theirs."""
    if sort == "memory":
        turns, facts = memory.conversation(rng, distraction, is_short=rng.random() < ease)
        return turns, [fact.value for fact in facts]
    if sort == "document":
        return documents.document(rng, sources.excerpt if sources else None)
    if sort in ("paragraph", "excerpt", "asked by people"):
        return paragraphs.reading(rng)
    if sort == "json":
        return structured.as_json(rng)
    make: dict[str, Callable[[Random, memory.Distract], Copying]] = {
        "correct": revisions.correct,
        "slip": revisions.slip,
        "confirm": revisions.confirm,
        "near miss": revisions.near_miss,
        "contrast": contrasts.contrast,
        "several": introductions.several,
        "after a story": interludes.after_story,
        "two people": interludes.two_people,
        "list": structured.a_list,
    }
    return make[sort](rng, distraction)


def in_small_letters(rng: Random, turn: Turn, values: Sequence[str]) -> Turn:
    """A turn of a user who types no capitals, at times no punctuation; what was told is answered
    as it was typed.
    """
    user, reply = turn
    asked = user.lower()
    if rng.random() < 0.6:
        asked = asked.rstrip(".!?")
    if rng.random() < 0.25:
        asked = re.sub(r"[,;:'\"]", "", asked)
    for value in sorted(values, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(value)}(?!\w)"
        reply = re.sub(pattern, value.lower(), reply)
    return asked, reply


def _reply(reply: str, values: Sequence[str], before: Sequence[Message]) -> Message:
    message = {"role": "assistant", "content": capital(reply.strip())}
    said = reply.casefold()
    there = [value for value in dict.fromkeys(values) if value.casefold() in said]
    if not there:
        return message
    heard = "\n".join(each["content"] for each in before).casefold()
    told = [value for value in there if value.casefold() in heard]
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
    if len(text) > 400:  # a document is not typed
        return text
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
    if pick < 0.25 and len(text) > 12 and text[1:].islower() and not any(c.isdigit() for c in text):
        is_exact = any(word.casefold() in text.casefold() for word in exact)
        return text if is_exact else _slip(rng, text)
    return text


def _slip(rng: Random, text: str) -> str:
    """One letter left out, or two in the wrong order."""
    i = rng.randrange(1, len(text) - 1)
    if rng.random() < 0.5:
        return text[:i] + text[i + 1 :]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
