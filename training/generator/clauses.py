"""Questions for real sentences: what stands before the verb, after it, and where, when or why.

No grammar is known but a list of verbs and small words, so many sentences give no question, and
some give an awkward one; thousands of subjects and verbs make up for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.generator.grammar import capital
from training.generator.wording import people, verb_forms

TOKEN = re.compile(r"[A-Za-z][A-Za-z'-]*|\d[\d,.]*\d|\d|[^\w\s]")
BE = frozenset("is are was were".split())
AUXILIARIES = BE | frozenset("has have had can could will would must should may might".split())
DETERMINERS = frozenset(
    "the a an his her its their my our your this that these those some every each all many few"
    " several most no both another two three four five six seven eight nine ten twenty hundred"
    " thousand".split()
)
NUMBERS = frozenset(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen twenty"
    " thirty forty fifty sixty hundred thousand million".split()
)
PRONOUNS = frozenset("he she it they we i you".split())
PLACES = frozenset(
    "in on at to into from near under behind through across toward towards over inside beside"
    " above below around along upon beyond between among outside".split()
)
OTHER_PREPOSITIONS = {
    "with": ("With {w}", "What {x} with"), "by": ("By {w}", "How"), "for": ("For {w}", "What {x} for"),
    "about": ("About {w}", "What {x} about"), "against": ("Against {w}", "What {x} against"),
    "after": ("When", "After {w}"), "before": ("When", "Before {w}"), "during": ("When", "When"),
    "without": ("Without {w}", "What {x} without"), "until": ("Until when", "How long"),
    "because": ("Why", "For what reason"), "since": ("Since when", "When"),
}  # fmt: skip
TIMES = re.compile(
    r"\b(1\d{3}|20\d\d|\d{3,4}s?|morning|evening|night|afternoon|noon|midnight|day|days|week|month"
    r"|year|years|hour|summer|winter|spring|autumn|century|January|February|March|April|June|July"
    r"|August|September|October|November|December|\w+day|moment|time|age|beginning|end)\b"
)
BREAKS = frozenset(
    "and but or so when while who which that whom whose where because although though if as than"
    " until unless since before after".split()
)
OPENING = frozenset("and but so then thus however now yet".split())
NO_SUBJECT = frozenset(
    "there when if because although while as which who what how why not nor for where that's it's"
    " here let having being to after before since until during also once up down away even only just"
    " still perhaps maybe never always often sometimes soon later first next last again together"
    " out off back well yes no oh ah indeed of such more less than instead another".split()
)
MAX_SUBJECT, MAX_PART = 7, 9  # tokens


@dataclass(frozen=True, slots=True)
class Clause:
    """A sentence's first clause as tokens: who or what, the verb, and what follows it."""

    opening: list[str]  # "In 1320," without its comma
    subject: list[str]
    verb: str
    rest: list[str]


@dataclass(frozen=True, slots=True)
class Cut:
    """A question, and the words of the sentence that answer it."""

    question: str
    answer: str


def parse(sentence: str) -> Clause | None:
    """The first clause, where the sentence begins with a subject that can be told."""
    tokens = TOKEN.findall(sentence)
    while tokens and (tokens[0].lower() in OPENING or tokens[0] in ",-"):
        tokens = tokens[1:]
    opening: list[str] = []
    if (
        tokens
        and tokens[0].lower() in PLACES | {"during", "after", "before"}
        and "," in tokens[2:9]
    ):
        comma = tokens.index(",", 2)
        opening, tokens = tokens[:comma], tokens[comma + 1 :]
    if not tokens or tokens[0].lower() in NO_SUBJECT or tokens[0].endswith(("ed", "ing", "ly")):
        return None
    for i, token in enumerate(tokens[: MAX_SUBJECT + 1]):
        if not token[0].isalnum() or (i and token.lower() in BREAKS | PRONOUNS | {"there"}):
            return None
        if i and _is_verb(token, tokens[i - 1]):
            rest = tokens[i + 1 :]
            return Clause(opening, tokens[:i], token, rest) if rest else None
    return None


def _is_verb(token: str, before: str) -> bool:
    if token in AUXILIARIES:
        return True
    form = verb_forms().get(token)
    if form is None or before.lower() in DETERMINERS or before.lower() in PLACES | {"of", "to"}:
        return False
    return form[1] == "past" or (
        form[1] == "third" and before.lower() not in PRONOUNS - {"he", "she", "it"}
    )


def text_of(tokens: list[str]) -> str:
    """Tokens as a text again."""
    joined = " ".join(tokens)
    return re.sub(r"(\() | ([,.;:?!)])", r"\1\2", joined)


def _until_break(tokens: list[str]) -> list[str]:
    """Up to a comma or a word that begins another clause."""
    for i, token in enumerate(tokens):
        if not token[0].isalnum() or (i and token.lower() in BREAKS):
            return tokens[:i]
    return tokens


def wh(tokens: list[str]) -> str:
    """ "who" or "what" for these words."""
    if any(token.lower() in people() for token in tokens):
        return "who"
    has_name = all(token[0].isupper() for token in tokens) or tokens[0].lower() in PRONOUNS
    return "who" if has_name and tokens[0].lower() != "it" else "what"


def cuts(rng: Random, sentence: str) -> list[Cut]:
    """All questions that the rules make of the sentence."""
    clause = parse(sentence)
    if clause is None:
        return []
    rest = _until_break(clause.rest)
    found = [
        *_for_opening(clause, rest),
        *_for_subject(clause, rest),
        *_after_verb(rng, clause, rest),
    ]
    return [cut for cut in found if 2 <= len(cut.question.split()) <= 24 and cut.answer]


def _asked(clause: Clause, rest: list[str]) -> str:
    """The verb before the subject: "did the king live in the castle"."""
    subject = list(clause.subject)
    if not _is_name(subject[0]):
        subject[0] = subject[0].lower()
    if clause.verb in AUXILIARIES and not _has(clause):
        return text_of([clause.verb, *subject, *rest])
    base, form = verb_forms().get(
        clause.verb, ("have", "third" if clause.verb != "had" else "past")
    )
    return text_of(["does" if form == "third" else "did", *subject, base, *rest])


def _has(clause: Clause) -> bool:
    """Whether "had" is all of the verb, as in "the king had a dog"."""
    if clause.verb not in ("has", "have", "had"):
        return False
    after = clause.rest[0].lower()
    is_perfect = verb_forms().get(after, ("", ""))[1] in ("past", "participle")
    return not is_perfect and after not in ("been", "not", "never", "to", "already", "just")


def _is_name(word: str) -> bool:
    lower = word.lower()
    known = DETERMINERS | PRONOUNS - {"i"} | people() | PLACES
    return not (lower in known or lower in verb_forms() or lower.endswith("s"))


def _is_noun_part(tokens: list[str]) -> bool:
    if not tokens or tokens[0].lower() == "that":
        return False
    return tokens[0].lower() in DETERMINERS or tokens[0][0].isdigit()


def _for_opening(clause: Clause, rest: list[str]) -> Iterator[Cut]:
    if clause.opening:
        said = text_of(clause.opening)
        word = "When" if TIMES.search(said) or clause.opening[0].lower() == "during" else "Where"
        yield Cut(f"{word} {_asked(clause, rest)}?", said)


def _for_subject(clause: Clause, rest: list[str]) -> Iterator[Cut]:
    if clause.subject[0].lower() not in PRONOUNS and rest:
        verb = clause.verb
        if verb in ("are", "were", "have"):
            verb = {"are": "is", "were": "was", "have": "has"}[verb]
        yield Cut(
            f"{capital(wh(clause.subject))} {text_of([verb, *rest])}?", text_of(clause.subject)
        )


def _after_verb(rng: Random, clause: Clause, rest: list[str]) -> Iterator[Cut]:
    """The words right after the verb, and what every preposition begins."""
    first = next((i for i, t in enumerate(rest) if _is_preposition(t)), len(rest))
    if rest and first and _is_noun_part(rest):
        yield from _object(clause, rest, first)
    for i in range(first, len(rest)):
        if not _is_preposition(rest[i]):
            continue
        end = next((j for j in range(i + 2, len(rest)) if _is_preposition(rest[j])), len(rest))
        part = rest[i:end]
        if 2 <= len(part) <= MAX_PART:
            yield from _preposition(rng, clause, rest[:i], part)
    tail = clause.rest[len(rest) :]
    if tail and tail[0].lower() == "because" and len(tail) > 3:
        yield Cut(f"Why {_asked(clause, rest)}?", text_of(["because", *_until_break(tail[1:])]))


def _is_preposition(token: str) -> bool:
    return token.lower() in PLACES or token.lower() in OTHER_PREPOSITIONS


def _object(clause: Clause, rest: list[str], first: int) -> Iterator[Cut]:
    thing, after = rest[:first], rest[first:]
    if len(thing) > MAX_PART:
        return
    if thing[0][0].isdigit() or thing[0].lower() in NUMBERS:
        if len(thing) > 1:
            counted = text_of(thing[1:])
            yield Cut(f"How many {counted} {_asked(clause, after)}?", thing[0])
        return
    word = capital(wh(thing))
    yield Cut(f"{word} {_asked(clause, after)}?", text_of(thing))


def _preposition(rng: Random, clause: Clause, before: list[str], part: list[str]) -> Iterator[Cut]:
    said, asked = text_of(part), _asked(clause, before)
    preposition = part[0].lower()
    if preposition in OTHER_PREPOSITIONS:
        form = rng.choice(OTHER_PREPOSITIONS[preposition])
        object_word = {"who": "whom"}.get(wh(part[1:]), "what")
        if "{x}" in form:
            yield Cut(f"{form.format(x=asked)}?", said)
        else:
            yield Cut(f"{form.format(w=object_word)} {asked}?", said)
    elif TIMES.search(said) and preposition in ("in", "on", "at"):
        yield Cut(f"{rng.choice(('When', 'When', 'At what time', 'In which time'))} {asked}?", said)
    elif preposition == "to" and len(part) > 1 and verb_forms().get(part[1], ("", ""))[1] == "base":
        yield Cut(f"{rng.choice(('Why', 'What for', 'For what purpose'))} {asked}?", said)
    else:
        places = ("Where", "Where", f"{capital(preposition)} what", "In which place")
        yield Cut(f"{rng.choice(places)} {asked}?", said)
