"""Texts that tests take for those of people: explanations of the generator, three to a text."""

from __future__ import annotations

from random import Random

from training.generator.grammar import table
from training.generator.retold import HumanQuestion
from training.generator.sources import Sources

ASKED = HumanQuestion(
    "Long ago a king lived in a castle near the sea. There Gudrun gave the king a golden ring. "
    "The old dog of Gudrun slept under the table.",
    "What did Gudrun give to the king?",
    "A golden ring.",
)


def excerpt(rng: Random, num_tokens: int) -> str:
    texts = list(table("texts")["explain"].values())
    return " ".join(rng.sample(texts, max(1, num_tokens // 60)))


SOURCES = Sources(excerpt, lambda rng: ASKED)
