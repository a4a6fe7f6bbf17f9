"""Many ways to ask for one thing, from three forms of it.

A question ("What is the capital of France?"), a noun ("the capital of France") and a clause ("what
the capital of France is") are set into sentences; together they make thousands of wordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from training.generator.grammar import say, table, uncapital


def ask_for(
    rng: Random,
    questions: Sequence[str],
    nouns: Sequence[str] = (),
    clauses: Sequence[str] = (),
    **slots: object,
) -> str:
    """One question; half of the time one of `questions` as it stands."""
    wrappers, pick = table("phrasing"), rng.random()
    if pick < 0.25 and nouns:
        return say(rng, wrappers["noun"], n=say(rng, nouns, **slots))
    if pick < 0.4 and clauses:
        return say(rng, wrappers["embedded"], e=say(rng, clauses, **slots))
    question = say(rng, questions, **slots)
    if pick < 0.55:
        return wrap_question(rng, question)
    return question


def wrap_question(rng: Random, question: str) -> str:
    """The question with something before or after it."""
    return say(
        rng, table("phrasing")["ask"], q=question, q0=uncapital(question), c=rng.choice(",:")
    )
