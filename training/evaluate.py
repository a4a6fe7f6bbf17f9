"""Measure checkpoints side by side: `python -m training.evaluate FOLDER…`.

Every figure comes from questions whose wording is not in the training data (`training.held_out`),
answered by this app's own engine at temperature 0.5, and from held-out conversations of the
generator's own kind for the loss.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from training.answers import Answerer
from training.generator.grammar import table
from training.held_out import (
    DISTANCES,
    KINDS,
    Messages,
    Question,
    after_story_questions,
    assistant,
    fact_questions,
    recall_questions,
    story_questions,
    sum_questions,
    unknown_questions,
)

HELD_OUT = Path(__file__).parent / "data" / "eval_synth.jsonl"
NGRAM = 8
MIN_STORY_WORDS = 40  # less is no story, however little it repeats
NOT_KNOWN = re.compile(
    r"(do not|don't|cannot|can't|can not|could not|have no way to|not able to|no idea|never)"
    r" (\w+ )?(know|tell|see|say|look|find|answer|hear|remember|check|guess|read|feel)"
    r"|(did not|didn't|have not|haven't|not yet) (tell|told|say|said|mention)"
    r"|i am not sure|i'm not sure|too hard for me|more than i can do|no way of knowing|no idea"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and the goal it is held against."""

    name: str
    value: float
    unit: str = "%"
    goal: str = ""
    count: int = 0


def is_right(question: Question, reply: str) -> bool:
    """Whether the reply has the expected answer: the last number of a sum, else a whole word."""
    if question.group == "sums":
        numbers = re.findall(r"\d+", reply)
        return bool(numbers) and numbers[-1] == question.expected
    wanted = re.escape(question.expected.casefold())
    return re.search(rf"(?<!\w){wanted}(?!\w)", reply.casefold()) is not None


def admits_ignorance(reply: str) -> bool:
    return NOT_KNOWN.search(reply.casefold().replace("’", "'")) is not None


def repeated_ngrams(text: str) -> tuple[int, int]:
    """How many 8-grams of words occurred before in the same text, and how many there are."""
    words = re.findall(r"[\w']+", text.casefold())
    seen: set[tuple[str, ...]] = set()
    repeated = 0
    for i in range(len(words) - NGRAM + 1):
        ngram = tuple(words[i : i + NGRAM])
        repeated += ngram in seen
        seen.add(ngram)
    return repeated, max(0, len(words) - NGRAM + 1)


def percentage(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return 100 * sum(listed) / len(listed)


class Evaluation:
    """All measures of one checkpoint; `replies` keeps what it said, for people to read."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self.replies: list[tuple[Question, str, bool]] = []

    def answered(
        self,
        questions: list[Question],
        is_good: Callable[[Question, str], bool],
        *,
        max_new_tokens: int = 60,
    ) -> list[tuple[Question, str, bool]]:
        conversations = [question.messages for question in questions]
        said = self._answerer.replies(conversations, max_new_tokens=max_new_tokens)
        rated = [(q, reply, is_good(q, reply)) for q, reply in zip(questions, said, strict=True)]
        self.replies += rated
        return rated

    def recall(self, per_cell: int) -> list[Figure]:
        rated = self.answered(recall_questions(per_cell), is_right)
        goals = dict(zip(DISTANCES, (95, 90, 80), strict=True))
        figures = []
        for distance in DISTANCES:
            cells = {k: [r[2] for r in rated if r[0].group == f"{k} {distance}"] for k in KINDS}
            every = [flag for flags in cells.values() for flag in flags]
            name = f"recall, told {distance} turns earlier"
            goal = f"≥ {goals[distance]}"
            figures.append(Figure(name, percentage(every), goal=goal, count=len(every)))
            figures += [Figure(f"  {k}", percentage(f), count=len(f)) for k, f in cells.items()]
        return figures

    def after_story(self) -> Figure:
        """Whether the user's name outlives the names in a story that the model tells itself."""
        asked = after_story_questions()
        stories = self._answerer.replies([q.messages for q, _ in asked], max_new_tokens=400)
        questions = [
            Question(q.group, [*q.messages, assistant(story), then], q.expected)
            for (q, then), story in zip(asked, stories, strict=True)
        ]
        share = percentage(good for _, _, good in self.answered(questions, is_right))
        return Figure("recall of a name after a story", share, count=len(questions))

    def sums(self) -> Figure:
        rated = self.answered(sum_questions(), is_right)
        share = percentage(good for _, _, good in rated)
        return Figure("sums up to 20", share, goal="≥ 95", count=len(rated))

    def facts(self, facts: dict[str, dict[str, str]]) -> list[Figure]:
        rated = self.answered(fact_questions(facts), is_right)
        share = percentage(good for _, _, good in rated)
        figures = [Figure("basic facts", share, goal="≥ 95", count=len(rated))]
        for group in ("capitals", "continents"):
            flags = [good for question, _, good in rated if question.group == group]
            figures.append(Figure(f"  {group}", percentage(flags), count=len(flags)))
        return figures

    def stories(self) -> list[Figure]:
        rated = self.answered(
            story_questions(),
            lambda _, reply: len(reply.split()) >= MIN_STORY_WORDS,
            max_new_tokens=400,
        )
        counts = [repeated_ngrams(reply) for _, reply, _ in rated]
        share = 100 * sum(r for r, _ in counts) / max(1, sum(n for _, n in counts))
        return [
            Figure("repeated 8-grams in stories", share, goal="< 1", count=len(rated)),
            Figure("  that are stories", percentage(good for _, _, good in rated)),
        ]

    def unknown(self) -> Figure:
        rated = self.answered(unknown_questions(), lambda _, reply: admits_ignorance(reply))
        share = percentage(good for _, _, good in rated)
        return Figure('"I do not know" where it cannot', share, goal="≥ 80", count=len(rated))

    def loss(self, conversations: list[Messages]) -> Figure:
        nats, num_bytes = self._answerer.reply_loss(conversations)
        return Figure("held-out loss", nats / num_bytes, "nats/byte", "< v0", len(conversations))


def read_conversations(path: Path, limit: int) -> list[Messages]:
    lines = path.read_text(encoding="utf-8").splitlines()[:limit]
    return [json.loads(line)["messages"] for line in lines]


def markdown(columns: dict[str, list[Figure]]) -> str:
    """The figures of several checkpoints side by side, in Markdown."""
    names = list(columns)
    lines = ["| measure | " + " | ".join(names) + " | goal | questions |"]
    lines.append("|---|" + "---:|" * (len(names) + 2))
    for row in zip(*columns.values(), strict=True):
        cells = [f"{f.value:.4f}" if f.unit != "%" else f"{f.value:.1f} {f.unit}" for f in row]
        first = row[0]
        unit = "" if first.unit == "%" else f" ({first.unit})"
        lines.append(
            f"| {first.name}{unit} | {' | '.join(cells)} | {first.goal} | {first.count or ''} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="checkpoints in transformers' format")
    parser.add_argument("--conversations", type=Path, default=HELD_OUT, help="for the loss")
    parser.add_argument("--per-cell", type=int, default=25, help="questions of a kind and distance")
    parser.add_argument("--loss-conversations", type=int, default=400)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--replies", type=Path, help="folder for everything that was said")
    return parser.parse_args(arguments)


def evaluate(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """All figures of one checkpoint, printed as they are known."""
    started_s = time.monotonic()
    evaluation = Evaluation(Answerer(folder, device=options.device))
    conversations = read_conversations(options.conversations, options.loss_conversations)
    figures = [
        evaluation.loss(conversations),
        *evaluation.recall(options.per_cell),
        evaluation.after_story(),
        evaluation.sums(),
        *evaluation.facts(table("countries")),
        *evaluation.stories(),
        evaluation.unknown(),
    ]
    if options.replies:
        options.replies.mkdir(parents=True, exist_ok=True)
        write_replies(options.replies / f"{folder.name}.txt", evaluation)
    print(f"{folder}: measured in {time.monotonic() - started_s:.0f} s", flush=True)
    return figures


def write_replies(path: Path, evaluation: Evaluation) -> None:
    lines = [
        f"[{'ok' if good else 'NO'}] {q.group}: {q.messages[0]['content']!r} …"
        f" {q.messages[-1]['content']!r} → {reply!r} ({q.expected})"
        for q, reply, good in evaluation.replies
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    print(markdown({folder.name: evaluate(folder, options) for folder in options.folders}))


if __name__ == "__main__":
    main()
