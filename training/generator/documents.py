"""Documents of up to 3,000 tokens with questions about single sentences, wherever they stand.

Between the facts that may be asked for stands what a document is mostly made of: explanations,
stories, and passages of the plain texts where the caller has some.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from training.generator import excerpts, paragraphs, stories
from training.generator.excerpts import Excerpt
from training.generator.grammar import Turn, capital, say, table
from training.generator.handed import dialogue
from training.generator.paragraphs import Scene, Told
from training.generator.revisions import Copying

MIN_WORDS, MAX_WORDS = 40, 2_050
REAL = 0.35  # of the documents, where there are real texts


def document(rng: Random, excerpt: Excerpt | None = None) -> Copying:
    """A long text and up to six questions; the later they come the more they have to carry."""
    target = math.exp(rng.uniform(math.log(MIN_WORDS), math.log(MAX_WORDS)))
    scene = Scene(rng)
    if excerpt and rng.random() < REAL:
        return _of_real_sentences(rng, scene, target, excerpt)
    told = paragraphs.facts(rng, scene, rng.choice((1, 2, 3, 4, 6, 8)))
    subject = capital(say(rng, _pools()["about"], **scene.fill({"b", "t", "p", "ev", "w"})))
    blocks = _blocks(rng, scene, told, target, excerpt)
    has_title = rng.random() < 0.4
    if has_title:
        blocks.insert(0, say(rng, _pools()["titles"], s=_low(subject), S=subject))
    text = rng.choice(("\n\n", "\n\n", "\n", " ")).join(blocks)
    asked = paragraphs.questions(rng, scene, told, rng.choice((1, 2, 3, 4, 6)))
    turns, values = dialogue(rng, text, asked)
    if has_title and rng.random() < 0.3:
        turns.append(_summary(rng, subject))
    return turns, values


def _of_real_sentences(rng: Random, scene: Scene, target: float, excerpt: Excerpt) -> Copying:
    """Sentences that have strayed in from other texts, and questions about them."""
    strayed = excerpts.strangers(rng, excerpt, rng.choice((1, 1, 2, 3)))
    told = [Told(-1, {}, sentence) for sentence, _ in strayed]
    text = rng.choice(("\n\n", "\n", " ")).join(_blocks(rng, scene, told, target, excerpt))
    asked = [each for _, each in strayed]
    rng.shuffle(asked)
    return dialogue(rng, text, asked)


def _pools() -> Any:
    return table("paragraphs")["pools"]


def _low(subject: str) -> str:
    return subject.replace("The ", "the ", 1)


def _summary(rng: Random, subject: str) -> Turn:
    return say(rng, _pools()["summary_ask"]), say(rng, _pools()["summary"], s=_low(subject))


def _blocks(
    rng: Random, scene: Scene, told: list[Told], target: float, excerpt: Excerpt | None
) -> list[str]:
    """Paragraphs of about `target` words together, the facts spread over them at random."""
    fillers: list[str] = []
    words = sum(len(fact.sentence.split()) for fact in told)
    while words < target:
        made = filler(rng, excerpt)
        fillers.append(made)
        words += len(made.split())
    if not fillers:
        return [paragraphs.prose(rng, scene, told)]
    if rng.random() < 0.35:  # all facts in one place
        fillers.insert(rng.randrange(len(fillers) + 1), paragraphs.prose(rng, scene, told))
        return fillers
    for fact in told:
        i = rng.randrange(len(fillers))
        if rng.random() < 0.5:
            fillers.insert(i, fact.sentence)
        else:
            fillers[i] = _inside(rng, fillers[i], fact.sentence)
    return fillers


def _inside(rng: Random, text: str, sentence: str) -> str:
    """The sentence between two of the text's."""
    breaks = [i + 2 for i in range(len(text) - 2) if text[i : i + 2] == ". "]
    at = rng.choice([0, *breaks])
    return f"{text[:at]}{sentence} {text[at:]}"


def filler(rng: Random, excerpt: Excerpt | None) -> str:
    """A paragraph that answers none of the questions."""
    if excerpt and rng.random() < 0.8:
        return excerpt(rng, rng.choice((60, 120, 180, 240)))
    texts, pick = table("texts"), rng.random()
    if pick < 0.3:
        return stories.write(rng).text
    if pick < 0.7:
        topics = rng.sample(list(texts["explain"]), rng.choice((1, 2, 3)))
        return " ".join(texts["explain"][topic] for topic in topics)
    if pick < 0.8:
        _, tips = rng.choice(list(texts["advice"].items()))
        return " ".join(tips)
    if pick < 0.9:
        glosses = rng.sample(table("glosses"), 3)
        return " ".join(f"{capital(word)} means {gloss}." for word, _, gloss in glosses)
    return " ".join(rng.sample(texts["fun_facts"], 2))
