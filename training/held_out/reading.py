"""Paragraphs and documents of up to 3,000 tokens, with questions about a sentence of theirs.

The paragraphs are written for this; the documents are old novels' prose (`filler.txt`) with one
sentence put between two of its own, at five depths.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from training.held_out import FOLDER, Question, assistant, load, user

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (300, 1_000, 3_000)  # tokens of a document

CountTokens = Callable[[str], int]


def _texts() -> Any:
    return load("reading")


def paragraph_questions() -> list[Question]:
    """Every paragraph with each of its questions, in one message or in two."""
    texts, rng = _texts(), random.Random(31)
    asked: list[Question] = []
    for text, questions in texts["paragraphs"]:
        for question, expected in questions:
            frame = rng.choice(texts["frames"]).format(t=text, q=question)
            handed = [user(rng.choice(texts["hand"]).format(t=text)), assistant(texts["got"])]
            asked.append(Question("paragraphs", [user(frame)], expected))
            asked.append(Question("paragraphs", [*handed, user(question)], expected))
    return asked


def missing_questions() -> list[Question]:
    """What a paragraph does not say."""
    texts = _texts()
    return [
        Question("not in the text", [user(f"{text}\n\n{question}")])
        for (text, _), question in zip(texts["paragraphs"], texts["missing"], strict=True)
    ]


def document_questions(
    count_tokens: CountTokens, *, lengths: tuple[int, ...] = LENGTHS, per_cell: int = 6
) -> list[Question]:
    """One sentence at each depth of documents of each length; groups "document 3000 at 0.5"."""
    texts, rng = _texts(), random.Random(32)
    sentences = re.split(r"(?<=[.!?])\s+", (FOLDER / "filler.txt").read_text(encoding="utf-8"))
    asked: list[Question] = []
    for length in lengths:
        for depth in DEPTHS:
            for i in range(per_cell):
                fact, question, expected = texts["facts"][(i + len(asked)) % len(texts["facts"])]
                slots = {slot: rng.choice(values) for slot, values in texts["values"].items()}
                prose = _prose(sentences, length, count_tokens, rng)
                at = round(depth * len(prose))
                text = " ".join([*prose[:at], fact.format(**slots), *prose[at:]])
                messages = [
                    user(texts["hand"][0].format(t=text)),
                    assistant(texts["got"]),
                    user(question.format(**slots)),
                ]
                group = f"document {length} at {depth}"
                asked.append(Question(group, messages, expected.format(**slots)))
    return asked


def _prose(
    sentences: list[str], length: int, count_tokens: CountTokens, rng: random.Random
) -> list[str]:
    """Sentences of the filler in a row, of about `length` tokens together."""
    start, tokens = rng.randrange(len(sentences)), 0
    found: list[str] = []
    while tokens < length - 60:
        sentence = sentences[(start + len(found)) % len(sentences)]
        found.append(sentence)
        tokens += count_tokens(sentence)
    return found
