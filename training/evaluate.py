"""Measure checkpoints side by side: `python -m training.evaluate FOLDER…`.

Every figure comes from questions whose wording is not in the training data (`training.held_out`),
answered by this app's own engine at temperature 0.5, and from held-out conversations of the
generator's own kind for the loss. `--save benchmarks/results/model` writes the table and the
figures where the repository keeps its results. Checkpoints that were measured at the same time, on
a GPU each, are put side by side with `--join ONE.json OTHER.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from training.answers import Answerer
from training.generator.grammar import table
from training.held_out import (
    DISTANCES,
    KINDS,
    Messages,
    fact_questions,
    recall_questions,
    story_questions,
    sum_questions,
    unknown_questions,
)
from training.measures import (
    Figure,
    Measures,
    admits_ignorance,
    is_right,
    percentage,
    rated_lines,
    repeated_ngrams,
)

HELD_OUT = Path(__file__).parent / "data" / "eval_synth.jsonl"
MIN_STORY_WORDS = 40  # less is no story, however little it repeats
TALK_TURNS = 20


class Evaluation(Measures):
    """The measures of the second generation's card, and those of whole situations."""

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
    rows = [_rows(figures) for figures in columns.values()]
    for key, first in max(rows, key=len).items():
        cells = [_cell(row.get(key)) for row in rows]
        unit = "" if first.unit == "%" else f" ({first.unit})"
        lines.append(
            f"| {first.name}{unit} | {' | '.join(cells)} | {first.goal} | {first.count or ''} |"
        )
    return "\n".join(lines)


def _rows(figures: list[Figure]) -> dict[tuple[str, str], Figure]:
    """By name, and parts of a figure by the whole's name too."""
    rows, whole = {}, ""
    for figure in figures:
        whole = whole if figure.name.startswith(" ") else figure.name
        rows[whole, figure.name] = figure
    return rows


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.4f}" if figure.unit != "%" else f"{figure.value:.1f} {figure.unit}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="checkpoints in transformers' format")
    parser.add_argument("--join", type=Path, nargs="+", help="figures that --save wrote, instead")
    parser.add_argument("--conversations", type=Path, default=HELD_OUT, help="for the loss")
    parser.add_argument("--per-cell", type=int, default=25, help="questions of a kind and distance")
    parser.add_argument("--loss-conversations", type=int, default=400)
    parser.add_argument("--talks", type=int, default=1000, help="conversations of small talk")
    parser.add_argument(
        "--quick", action="store_true", help="what a CPU measures in minutes: the short questions"
    )
    parser.add_argument("--names", nargs="+", help="of the columns, instead of the folders'")
    parser.add_argument("--save", type=Path, help="write PATH.json and PATH.md")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--replies", type=Path, help="folder for everything that was said")
    options = parser.parse_args(arguments)
    if bool(options.folders) == bool(options.join):
        parser.error("name folders with checkpoints to measure, or --join files of figures")
    return options


def evaluate(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """All figures of one checkpoint, printed as they are known."""
    started_s = time.monotonic()
    evaluation = Evaluation(Answerer(folder, device=options.device))
    conversations = read_conversations(options.conversations, options.loss_conversations)
    is_whole = not options.quick
    figures = [
        *([evaluation.loss(conversations)] if is_whole else []),
        *evaluation.recall(options.per_cell),
        evaluation.sums(),
        *(evaluation.facts(table("countries")) if is_whole else []),
        *(evaluation.stories() if is_whole else []),
        evaluation.unknown(),
        *evaluation.situations(has_far=is_whole),
        *evaluation.reading(has_documents=is_whole),
        *evaluation.calibration(),
        *evaluation.honesty(),
        *(evaluation.loops(options.talks, TALK_TURNS) if is_whole else []),
    ]
    if options.replies:
        options.replies.mkdir(parents=True, exist_ok=True)
        write_replies(options.replies / f"{folder.name}.txt", evaluation)
    print(f"{folder}: measured in {time.monotonic() - started_s:.0f} s", flush=True)
    return figures


def write_replies(path: Path, evaluation: Evaluation) -> None:
    path.write_text("\n".join(rated_lines(evaluation.replies)) + "\n", encoding="utf-8")


def save(path: Path, columns: dict[str, list[Figure]]) -> None:
    """PATH.json with every figure, and PATH.md with the table."""
    figures = {name: [asdict(figure) for figure in column] for name, column in columns.items()}
    path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shown = f"{TITLE}\n\n{markdown(columns)}\n"
    path.with_suffix(".md").write_text(shown, encoding="utf-8")


def join(paths: list[Path]) -> dict[str, list[Figure]]:
    """The columns of several files that `save` wrote."""
    columns: dict[str, list[Figure]] = {}
    for path in paths:
        for name, figures in json.loads(path.read_text(encoding="utf-8")).items():
            columns[name] = [Figure(**figure) for figure in figures]
    return columns


TITLE = """# The bundled model, by `python -m training.evaluate`

Temperature 0.5, top-p 0.9. Every question is worded as nothing in the training data is; a value is
right where the reply has the expected word. "≤" and "0" are goals that a smaller figure meets."""


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.join:
        columns = join(options.join)
    else:
        names = options.names or [folder.name for folder in options.folders]
        columns = {
            name: evaluate(folder, options)
            for name, folder in zip(names, options.folders, strict=True)
        }
    if options.save:
        save(options.save, columns)
    print(markdown(columns))


if __name__ == "__main__":
    main()
