"""A text that the user hands over, with a question or before all questions, and the replies."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.generator.grammar import Turn, framed, say, table, uncapital
from training.generator.revisions import Copying


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a text, its reply, and the word of the text that the reply repeats."""

    question: str
    reply: str
    answer: str


def dialogue(rng: Random, text: str, asked: list[Asked]) -> Copying:
    """The text with the first question, or handed over before all questions."""
    pools = table("paragraphs")["pools"]
    turns: list[Turn] = []
    first, *rest = asked
    if rng.random() < 0.5:
        wrapped = say_around(rng, pools["wrap"], t=text, q=first.question)
        turns.append((wrapped, first.reply))
    else:
        turns.append((say_around(rng, pools["hand"], t=text, q=""), say(rng, pools["got"])))
        rest = asked
    for each in rest:
        turns.append((say_around(rng, pools["later"], t="", q=each.question), each.reply))
    return turns, [each.answer for each in asked if each.answer]


def say_around(rng: Random, templates: list[str], *, t: str, q: str) -> str:
    """A frame around a text that is left as it is, line breaks included."""
    return framed(rng, templates, t=t, q=q, q0=uncapital(q))
