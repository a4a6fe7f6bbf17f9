"""English in other words: synonyms in the same form, and the forms of verbs.

What a question and its text have in common is seldom the whole wording. These tables change some
of the words of either, so that a model must go by what is left and by what words mean.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from random import Random

from training.generator.grammar import capital, table, with_articles

FORMS = ("past", "participle", "base", "third", "ing")  # "found" is rather of find
VOWELS = "aeiou"
DOUBLING = frozenset(  # short verbs whose last letter doubles, longer ones with a stress at the end
    "beg chat drag drop fit grab hop knit permit plan rob rub shop slip snap spin spot stir stop"
    " step swap trap trim tug wed win run swim sit cut get let put quit set hit begin forget admit"
    " commit prefer refer occur dig shut split".split()
)
WORD = re.compile(r"[A-Za-z][a-z-]*")


@cache
def irregular() -> dict[str, tuple[str, str]]:
    entries = (each.split() for each in table("wording")["irregular"].split(", "))
    return {base: (past, participle) for base, past, participle in entries}


def inflected(verb: str, form: str) -> str:
    """A form of a verb's base; of "come_back" the first word changes."""
    base, *rest = verb.split("_")
    return " ".join([_inflected(base, form), *rest])


def _inflected(base: str, form: str) -> str:
    if form == "base":
        return base
    if base == "be":
        return {"past": "were", "participle": "been", "third": "is", "ing": "being"}[form]
    if base == "have":
        return {"third": "has", "ing": "having"}.get(form, "had")
    if form in ("past", "participle") and base in irregular():
        return irregular()[base][form == "participle"]
    ends_in_y = base.endswith("y") and base[-2:-1] not in VOWELS
    if form == "third":
        if ends_in_y:
            return f"{base[:-1]}ies"
        return base + ("es" if base.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
    stem = base + base[-1] if base in DOUBLING else base
    if form == "ing":
        if base.endswith("ie"):
            return f"{base[:-2]}ying"
        return f"{base[:-1]}ing" if base.endswith("e") and base[-2:] != "ee" else f"{stem}ing"
    if ends_in_y:
        return f"{base[:-1]}ied"
    return f"{base}d" if base.endswith("e") else f"{stem}ed"


@cache
def verb_forms() -> dict[str, tuple[str, str]]:
    """Each form of each known verb: its base, and which form it is."""
    bases = [*irregular(), *table("wording")["regular"].split()]
    found: dict[str, tuple[str, str]] = {}
    for form in FORMS:
        for base in bases:
            found.setdefault(inflected(base, form), (base, form))
    return found


@cache
def alike() -> dict[str, tuple[str, ...]]:
    """What may stand for a word, in the same form."""
    others: defaultdict[str, list[str]] = defaultdict(list)
    for group in (each.split() for each in table("wording")["verbs_alike"]):
        for form in FORMS:
            _add_group(others, [inflected(verb, form) for verb in group])
    for listed in table("wording")["alike"]:
        _add_group(others, [word.replace("_", " ") for word in listed.split()])
    for word, choices in table("memory")["synonyms"].items():
        others[word] += choices.split("|")
    return {word: tuple(dict.fromkeys(each)) for word, each in others.items() if each}


def _add_group(others: defaultdict[str, list[str]], words: list[str]) -> None:
    for word in words:
        if " " not in word:
            others[word] += [each for each in words if each != word]


@cache
def people() -> frozenset[str]:
    return frozenset(table("wording")["people"].split())


def reworded(rng: Random, text: str, share: float, kept: frozenset[str] = frozenset()) -> str:
    """The text with that share of its words that have a synonym replaced; none of `kept`."""
    synonyms = alike()

    def other(found: re.Match[str]) -> str:
        word = found[0]
        instead = synonyms.get(word.lower())
        if instead is None or word.lower() in kept or rng.random() > share:
            return word
        chosen = rng.choice(instead)
        return capital(chosen) if word[0].isupper() else chosen

    return with_articles(WORD.sub(other, text))


def words_of(text: str) -> frozenset[str]:
    """The words of a value, which must stay as they are wherever the text says it."""
    return frozenset(re.findall(r"[\w-]+", text.lower()))
