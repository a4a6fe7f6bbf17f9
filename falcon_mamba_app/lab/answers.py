"""The plan of a recall probe, its answers, and what they come to in each cell of depth × length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.lab import values
from falcon_mamba_app.lab.facts import CHANCE, MAX_FACTS
from falcon_mamba_app.lab.intervals import wilson

KIND = "recall-probe"
VERSION = 1
MIN_LENGTH, MAX_LENGTH = 200, 1_000_000
MAX_LENGTHS = 20
MAX_PER_CELL = 1_000
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One question's. `depth` is the fact's, 0 to 1; `sample` the number of its filler."""

    length: int
    depth: float
    sample: int
    right: bool
    reply: str = ""

    @property
    def key(self) -> tuple[int, float, int]:
        return self.length, self.depth, self.sample


@dataclass(frozen=True, slots=True)
class Cell:
    """What is known of one length and depth; the interval holds the true share in 95 of 100."""

    length: int
    depth: float
    asked: int
    right: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Which questions are asked. The same plan asks the same questions, of any model."""

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    per_cell: int
    seed: int

    @classmethod
    def of(cls, asked: Mapping[str, Any], *, max_length: int = MAX_LENGTH) -> Plan:
        """From plain values. Raises InvalidRequest."""
        lengths = values.entries(asked, "lengths", MAX_LENGTHS)
        depths = values.entries(asked, "depths", MAX_FACTS)
        plan = cls(
            tuple(sorted({_length(one, max_length) for one in lengths})),
            tuple(sorted({values.number({"depth": one}, "depth", 0, 1) for one in depths})),
            values.whole(asked, "per_cell", 1, MAX_PER_CELL),
            values.whole(asked, "seed", 0, MAX_SEED, 0),
        )
        if not plan.lengths or not plan.depths:
            raise InvalidRequest("a probe needs at least one length and one depth", param="lengths")
        return plan

    @property
    def num_questions(self) -> int:
        return len(self.lengths) * len(self.depths) * self.per_cell

    def units(self) -> Iterator[tuple[int, int]]:
        """Sample and length of each filler: one of every length, then the next of every length. So
        whatever was asked when somebody stops is spread evenly.
        """
        return ((sample, length) for sample in range(self.per_cell) for length in self.lengths)

    def seed_of(self, sample: int, length: int) -> str:
        """The seed of one filler."""
        return f"{self.seed} {length} {sample}"


class Tally:
    """The answers of a plan as they come, counted by cell. Others than the plan's do not count."""

    def __init__(self, plan: Plan, answers: Iterable[Answer] = ()) -> None:
        self.plan = plan
        self._counts = {(length, depth): [0, 0] for length in plan.lengths for depth in plan.depths}
        self._answers: dict[tuple[int, float, int], Answer] = {}
        for answer in answers:
            self.add(answer)

    @property
    def answers(self) -> list[Answer]:
        return list(self._answers.values())

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: tuple[int, float, int]) -> bool:
        return key in self._answers

    def add(self, answer: Answer) -> None:
        """Count an answer, once."""
        count = self._counts.get((answer.length, answer.depth))
        is_planned = count is not None and answer.sample < self.plan.per_cell
        if count is not None and is_planned and answer.key not in self._answers:
            self._answers[answer.key] = answer
            count[0] += 1
            count[1] += answer.right

    def cell(self, length: int, depth: float) -> Cell:
        asked, right = self._counts[length, depth]
        low, high = wilson(right, asked)
        return Cell(length, depth, asked, right, round(low, 4), round(high, 4))

    def cells(self) -> list[Cell]:
        """All cells, asked or not, lengths first."""
        return [self.cell(length, depth) for length, depth in self._counts]


def answers_of(entries: Iterable[Any]) -> list[Answer]:
    """From plain values: lists of length, depth, sample, whether it is right, and the reply. Raises
    InvalidRequest.
    """
    answers = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) not in (4, 5):
            raise InvalidRequest("an answer is a list of length, depth, sample, right, reply")
        known = dict(zip(("length", "depth", "sample", "right", "reply"), entry, strict=False))
        answers.append(
            Answer(
                values.whole(known, "length", MIN_LENGTH, MAX_LENGTH),
                values.number(known, "depth", 0, 1),
                values.whole(known, "sample", 0, MAX_PER_CELL),
                known["right"] in (True, 1),
                values.text(known, "reply", 2_000),
            )
        )
    return answers


def as_record(model: str, tally: Tally) -> dict[str, Any]:
    """All of a probe as plain values, for a file."""
    return {
        "kind": KIND,
        "version": VERSION,
        "model": model,
        "plan": asdict(tally.plan),
        "chance": CHANCE,
        "cells": [asdict(cell) for cell in tally.cells()],
        "answers": [[*one.key, int(one.right), one.reply] for one in tally.answers],
    }


def answers_in(record: Any, model: str, plan: Plan) -> list[Answer]:
    """The answers of an earlier record, to go on from. More samples and other lengths may be asked
    for; the depths and the seed decide which facts there are. Raises InvalidRequest.
    """
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise InvalidRequest("this file holds no recall probe")
    planned = record.get("plan")
    before = Plan.of(planned if isinstance(planned, dict) else {})
    for name, then, now in (
        ("model", record.get("model"), model),
        ("seed", before.seed, plan.seed),
        ("depths", before.depths, plan.depths),
    ):
        if then != now:
            raise InvalidRequest(
                f"this file is of another {name}: {then}, not {now}; take another file"
            )
    return answers_of(values.entries(record, "answers", 1_000_000))


def _length(value: Any, max_length: int) -> int:
    return values.whole({"length": value}, "length", MIN_LENGTH, max_length)
