"""Questions whose wording does not occur in training: the measure of what the model can do.

Written before the model was trained, and never imported by the generator; a test compares the
wordings of both. The generator was widened where short runs answered these wrongly, with other
wordings. Everything is drawn with a fixed seed, so each model gets the same questions.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DISTANCES = (1, 5, 20)  # turns from being told to being asked
KINDS = ("name", "pet", "colour", "place")
PER_CELL = 25

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that waits for its last reply, and what this reply has to contain."""

    group: str
    messages: Messages
    expected: str = ""


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def recall_questions(per_cell: int = PER_CELL) -> list[Question]:
    """Facts told 1, 5 and 20 turns before they are asked for, in groups "name 1" to "place 20"."""
    texts, rng = load("recall"), random.Random(1)
    return [
        _recall(texts, kind, distance, i, rng)
        for kind in KINDS
        for distance in DISTANCES
        for i in range(per_cell)
    ]


def _recall(
    texts: dict[str, Any], kind: str, distance: int, number: int, rng: random.Random
) -> Question:
    wording = texts[kind]
    value = wording["values"][number % len(wording["values"])]
    slots = {"v": value, "k": rng.choice(wording.get("kinds", [""]))}
    told = [
        user(rng.choice(wording["tell"]).format(**slots)),
        assistant(rng.choice(texts["acknowledgements"])),
    ]
    between = _distractors(texts, distance - 1, rng)
    asked = user(rng.choice(wording["ask"]).format(**slots))
    return Question(f"{kind} {distance}", [*told, *between, asked], value)


def _distractors(texts: dict[str, Any], num_turns: int, rng: random.Random) -> Messages:
    """Small talk; from four turns on, one of them names somebody else or another place."""
    turns = rng.sample(texts["distractors"], num_turns)
    if num_turns >= 4:
        ask, reply = rng.choice(texts["other_facts"])
        turns[rng.randrange(num_turns)] = [ask.format(o=rng.choice(texts["others"])), reply]
    return [message for ask, reply in turns for message in (user(ask), assistant(reply))]


def sum_questions() -> list[Question]:
    """Every sum a + b ≤ 20, once."""
    texts, rng = load("questions")["sums"], random.Random(2)
    return [
        Question("sums", [user(rng.choice(texts).format(a=a, b=b))], str(a + b))
        for a in range(21)
        for b in range(21 - a)
    ]


def fact_questions(facts: dict[str, dict[str, str]]) -> list[Question]:
    """The capital and the continent of every country of facts.json."""
    texts, rng = load("questions"), random.Random(3)
    asked = []
    for country, fact in facts.items():
        capital = rng.choice(texts["capitals"]).format(v=country)
        continent = rng.choice(texts["continents"]).format(v=country)
        asked.append(Question("capitals", [user(_start_upper(capital))], fact["capital"]))
        # "Asia, in the Middle East": the continent is what is asked for.
        place = fact["cont"].partition(",")[0]
        asked.append(Question("continents", [user(_start_upper(continent))], place))
    return asked


def _start_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def story_questions() -> list[Question]:
    texts, rng = load("questions"), random.Random(4)
    return [
        Question("stories", [user(rng.choice(texts["stories"]).format(v=hero))])
        for hero in texts["heroes"]
    ]


def unknown_questions() -> list[Question]:
    return [Question("unknown", [user(text)]) for text in load("questions")["unknown"]]
