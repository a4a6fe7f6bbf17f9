"""Pieces of real texts and questions for them: thousands of subjects, so only copying answers.

Questions are cut out of the sentences themselves (`clauses.py`), their words partly replaced by
others, left out, or only named; the answers are words of the text or the whole sentence. What is
in another text only is asked for too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training.generator import clauses
from training.generator.exchanged import exchange, with_others
from training.generator.grammar import capital, framed, say, table
from training.generator.handed import Asked, dialogue
from training.generator.revisions import Copying
from training.generator.wording import reworded, verb_forms

# A piece of a plain text: about so many tokens, whole sentences.
Excerpt = Callable[[Random, int], str]
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)(?<!U\.S\.)[\"']? +|\n+")
WORD = re.compile(r"[A-Za-z][a-z'-]*[a-z]")
FEWEST_WORDS, MOST_WORDS = 5, 36  # of a sentence that is asked about
EXCHANGED = 0.5  # of the pieces
SIZES = (40, 60, 80, 100, 130, 160, 200, 260, 340, 450)  # tokens of what is read
SMALL_WORDS = frozenset(
    "about above after again against along also although always among another because been before"
    " being below between both could does doing down during each either even every from further"
    " have having here hers herself himself himself however into itself just like little made"
    " many might more most much must myself never nothing often once only other ours over quite"
    " rather really said same shall should since some something soon still such than that their"
    " theirs them then there these they thing things this those though through thus together too"
    " under until upon very want well were what when where whether which while whom whose will with"
    " within without would your yours yourself".split()
)


@dataclass(frozen=True, slots=True)
class Text:
    """Sentences of a text; in which of them each word occurs."""

    sentences: list[str]
    found_in: dict[str, set[int]]

    @classmethod
    def of(cls, excerpt: str) -> Text:
        sentences = [each.strip() for each in SENTENCE_END.split(excerpt) if each.strip()]
        found_in: dict[str, set[int]] = {}
        for i, sentence in enumerate(sentences):
            for word in WORD.findall(sentence):
                found_in.setdefault(word.lower(), set()).add(i)
        return cls(sentences, found_in)

    def askable(self) -> list[int]:
        return [i for i, each in enumerate(self.sentences) if is_askable(each)]

    def own_words(self, i: int) -> list[str]:
        """Longer words that only this sentence has, in its order."""
        words = dict.fromkeys(WORD.findall(self.sentences[i]))
        return [
            word
            for word in words
            if len(word) > 3
            and word.lower() not in SMALL_WORDS
            and self.found_in[word.lower()] == {i}
        ]


def is_askable(sentence: str) -> bool:
    """A whole sentence that is no speech."""
    if (
        sentence[-1] not in ".!"
        or not sentence[0].isupper()
        or re.search("[\"()\\[\\];:*_]|'[A-Z]", sentence)
    ):
        return False
    return FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS


def templates() -> Any:
    return table("excerpts")


def ask(rng: Random, text: Text, i: int) -> Asked | None:
    """A question that the text's i-th sentence answers."""
    makers = (
        _in_words_of_its_own,
        _of_keywords,
        _with_a_gap,
        _how_it_goes_on,
        _whether_it_is_there,
    )
    make = rng.choices(makers, (62, 18, 9, 6, 5))[0]
    return make(rng, text, i) or _of_keywords(rng, text, i)


def _in_words_of_its_own(rng: Random, text: Text, i: int) -> Asked | None:
    sentence = text.sentences[i]
    found = clauses.cuts(rng, sentence)
    if not found:
        return None
    cut = rng.choice(found)
    question = paraphrased(rng, cut.question)
    question = framed(rng, templates()["extra"], q=question)
    return Asked(capital(question), reply(rng, sentence, cut.answer), cut.answer)


def paraphrased(rng: Random, question: str) -> str:
    """With other words, fewer words, or as it is."""
    if rng.random() < 0.75:
        question = reworded(rng, question, rng.choice((0.3, 0.6, 0.9)))
    if rng.random() < 0.4:
        first, *rest = question.rstrip("?").split()
        kept = [
            word for word in rest if rng.random() > 0.13 or word[0].isupper() or word in ("not",)
        ]
        question = f"{' '.join([first, *(kept or rest)])}?"
    return question


def reply(rng: Random, sentence: str, answer: str) -> str:
    """The sentence itself in most cases: it has the answer even where the question is not clear."""
    pick = rng.random()
    if pick < 0.30:
        return capital(framed(rng, templates()["short"], a=answer, A=capital(answer)))
    if pick < 0.40:
        return framed(rng, templates()["both"], a=capital(answer), s=sentence)
    return framed(rng, templates()["quoted"], s=sentence)


def _of_keywords(rng: Random, text: Text, i: int) -> Asked | None:
    words = text.own_words(i)
    if not words:
        return None
    sentence, chosen = text.sentences[i], rng.sample(words, min(len(words), 3))
    others = [as_keyword(rng, word) for word in chosen]
    if len(chosen) == 3 and rng.random() < 0.4:
        asked = framed(
            rng, templates()["telegram"], k=others[0], j=others[1], i=others[2],
            w=rng.choice(("who", "what", "where", "when", "why", "which", "how")),
        )  # fmt: skip
    elif len(chosen) > 1 and rng.random() < 0.5:
        asked = framed(
            rng, templates()["two_words"], k=others[0], j=others[1], K=capital(others[0])
        )
    else:
        asked = framed(rng, templates()["keyword"], k=chosen[0], K=capital(chosen[0]))
    return Asked(capital(asked), framed(rng, templates()["quoted"], s=sentence), words[0])


def as_keyword(rng: Random, word: str) -> str:
    """At times a verb's base, or a word of the same meaning."""
    base = verb_forms().get(word)
    if base and rng.random() < 0.5:
        word = base[0]
    return reworded(rng, word, 0.4)


def _with_a_gap(rng: Random, text: Text, i: int) -> Asked | None:
    words = text.sentences[i].split()
    size = rng.choice((1, 1, 2, 3))
    places = [
        j for j in range(1, len(words) - size + 1)
        if words[j].lower().strip(",.") not in SMALL_WORDS and len(words[j]) > 3
    ]  # fmt: skip
    if not places:
        return None
    at = rng.choice(places)
    answer = " ".join(words[at : at + size]).rstrip(",.!")
    shown = words
    start, end = 0, len(words)
    if rng.random() < 0.5:  # only what is near the gap
        start, end = (
            max(0, at - rng.randrange(2, 8)),
            min(len(words), at + size + rng.randrange(0, 7)),
        )
    gap = rng.choice(("___", "...", "____", "(...)"))
    blank = " ".join([*shown[start:at], gap, *shown[at + size : end]])
    asked = framed(rng, templates()["blank"], b=blank)
    said = framed(rng, templates()["filled"], a=answer, s=text.sentences[i])
    return Asked(capital(asked), capital(said), answer)


def _how_it_goes_on(rng: Random, text: Text, i: int) -> Asked | None:
    sentence = text.sentences[i]
    words = sentence.split()
    if rng.random() < 0.3 and i + 1 < len(text.sentences) and is_askable(text.sentences[i + 1]):
        asked = framed(rng, templates()["next"], b=sentence)
        return Asked(asked, text.sentences[i + 1], "")
    if len(words) < 8:
        return None
    shown = rng.randrange(3, min(7, len(words) - 3))
    asked = framed(rng, templates()["begins"], b=" ".join(words[:shown]))
    said = " ".join(words[shown:]) if rng.random() < 0.4 else sentence
    return Asked(asked, capital(said), "")


def _whether_it_is_there(rng: Random, text: Text, i: int) -> Asked | None:
    words = text.own_words(i)
    if not words:
        return None
    word = rng.choice(words)
    asked = framed(rng, templates()["is_there"], k=word)
    return Asked(asked, framed(rng, templates()["yes"], s=text.sentences[i]), word)


def ask_missing(rng: Random, text: Text, other: Text) -> Asked | None:
    """A question that the other text answers and this one does not."""
    places = other.askable()
    if not places:
        return None
    i = rng.choice(places)
    asked = ask(rng, other, i)
    foreign = [word for word in other.own_words(i) if word.lower() not in text.found_in]
    if asked is None or not foreign:
        return None
    if rng.random() < 0.3:
        word = rng.choice(foreign)
        question = framed(rng, templates()["is_there"], k=word)
        return Asked(question, framed(rng, templates()["no"], k=word), "")
    if not any(word.lower() in asked.question.lower() for word in foreign):
        return None
    return Asked(asked.question, say(rng, table("paragraphs")["pools"]["not_there"]), "")


def reading(rng: Random, excerpt: Excerpt) -> Copying:
    """A piece of a text and questions about it, in the same message or afterwards."""
    while True:
        piece = excerpt(rng, rng.choice(SIZES))
        if rng.random() < EXCHANGED:
            piece = with_others(piece, exchange(rng, piece))
        text = Text.of(piece)
        asked = questions(rng, text, rng.choice((1, 1, 2, 3)), excerpt)
        if asked:
            break
    return dialogue(rng, " ".join(text.sentences), asked)


def questions(rng: Random, text: Text, count: int, excerpt: Excerpt) -> list[Asked]:
    places = text.askable()
    chosen = rng.sample(places, min(count, len(places)))
    asked = [made for made in (ask(rng, text, i) for i in chosen) if made]
    if asked and rng.random() < 0.22:
        missing = ask_missing(rng, text, Text.of(excerpt(rng, 80)))
        if missing:
            asked.insert(rng.randrange(len(asked) + 1), missing)
    return asked


def strangers(rng: Random, excerpt: Excerpt, count: int) -> list[tuple[str, Asked]]:
    """Sentences of other texts and a question for each, to be put between others."""
    found: list[tuple[str, Asked]] = []
    while len(found) < count:
        text = Text.of(excerpt(rng, 120))
        places = text.askable()
        if places:
            i = rng.choice(places)
            alone = Text.of(text.sentences[i])
            asked = ask(rng, alone, 0) if len(alone.sentences) == 1 else None
            if asked:
                found.append((alone.sentences[0], asked))
    return found
