"""`falcon-mamba probe`: how much of a long text a model recalls, by depth and length.

The model runs in this process, without a server. The file holds every answer as it comes, so a
probe that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, SettingsError
from falcon_mamba_app.lab.answers import Answer, Plan, Tally, answers_in, as_record
from falcon_mamba_app.lab.asking import Asker
from falcon_mamba_app.lab.facts import CHANCE
from falcon_mamba_app.lab.probe import Asked
from falcon_mamba_app.lab.probe import probe as run_probe
from falcon_mamba_app.settings import Settings, load_settings

UNITS = {"k": 1_000, "m": 1_000_000}


def probe(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Ask, and write what came of it. Raises FalconMambaError."""
    parser = argparse.ArgumentParser(
        prog="falcon-mamba probe",
        description="Hides facts in long texts, has the model read them once, and asks for each"
        " fact. The server's options (--model, --device, --quantization, --max-prompt-tokens, …)"
        " are options of this command too.",
        allow_abbrev=False,
    )
    parser.add_argument("--lengths", default="1k,2k,4k,8k", metavar="1k,8k", help="tokens of texts")
    parser.add_argument(
        "--depths", default="0,25,50,75,100", metavar="0,50", help="where facts are, in per cent"
    )
    parser.add_argument("--per-cell", type=int, default=10, metavar="N", help="questions a cell")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same asks the same")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="all answers as JSON; goes on from it"
    )
    parser.add_argument("--csv", metavar="FILE", help="the cells as CSV too")
    given, rest = parser.parse_known_args(list(arguments))
    plan = Plan.of(
        {
            "lengths": [_tokens(one) for one in given.lengths.split(",")],
            "depths": [_share(one) for one in given.depths.split(",")],
            "per_cell": given.per_cell,
            "seed": given.seed,
        }
    )
    logging.disable(logging.WARNING)  # the lines between are the probe's
    return asyncio.run(_run(load_settings(rest, environment), plan, given))


async def _run(settings: Settings, plan: Plan, given: argparse.Namespace) -> int:
    # Imported here, so that --help and a bad option do not wait for it.
    from falcon_mamba_app.service import build_service

    service = build_service(settings)
    out = Path(given.out)
    try:
        await service.start()
        asker = Asker(service)
        model = asker.model.id
        tally = Tally(plan, _known(out, model, plan))
        if len(tally):
            print(f"going on after {len(tally):,} of {plan.num_questions:,} answers")
        width = service.stats().max_running or 1
        try:
            async with aclosing(run_probe(asker, plan, tally.answers, width=width)) as events:
                async for event in events:
                    if isinstance(event, Asked):
                        tally.add(event.answer)
                        _tell(event)
                        if len(tally) % len(plan.depths) == 0:
                            _write(out, as_record(model, tally))
        finally:
            _write(out, as_record(model, tally))
            if given.csv:
                _write_csv(Path(given.csv), tally)
        print(table(tally))
        print(f"{len(tally):,} of {plan.num_questions:,} answers are in {out}")
    finally:
        await service.close()
    return 0


def table(tally: Tally) -> str:
    """The cells as lines: a row for each depth, a column for each length."""
    plan = tally.plan
    lines = ["depth   " + "".join(f"{length:>18,}" for length in plan.lengths)]
    for depth in plan.depths:
        cells = [tally.cell(length, depth) for length in plan.lengths]
        shown = (
            f"{cell.right}/{cell.asked} ({100 * cell.low:.0f}–{100 * cell.high:.0f} %)"
            for cell in cells
        )
        lines.append(f"{100 * depth:>5.0f} % " + "".join(f"{one:>18}" for one in shown))
    lines.append(f"right of asked, and where the true share is (95 %); a guess: {CHANCE:.1%}")
    return "\n".join(lines)


def _tell(event: Asked) -> None:
    answer = event.answer
    cost = "" if event.tokens_read is None else f", {event.tokens_read} tokens read"
    where = f"{answer.length:,} tokens, depth {100 * answer.depth:.0f} %, text {answer.sample + 1}"
    is_right = "right" if answer.right else "wrong"
    print(f"{event.done:,}/{event.total:,}  {where}: {is_right}{cost}", file=sys.stderr)


def _known(path: Path, model: str, plan: Plan) -> list[Answer]:
    """The answers of a file, if there is one. Raises SettingsError for another kind of file."""
    if not path.exists():
        return []
    try:
        return answers_in(json.loads(path.read_text("utf-8")), model, plan)
    except (InvalidRequest, ValueError, OSError) as error:
        reason = str(error) if isinstance(error, FalconMambaError) else "it cannot be read"
        raise SettingsError(f"--out {path}: {reason}") from error


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    beside = path.with_name(f"{path.name}.part")
    try:
        beside.write_text(json.dumps(record, ensure_ascii=False) + "\n", "utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def _write_csv(path: Path, tally: Tally) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["length", "depth", "asked", "right", "low", "high"])
        for cell in tally.cells():
            rows.writerow([cell.length, cell.depth, cell.asked, cell.right, cell.low, cell.high])


def _tokens(text: str) -> int:
    """8k is 8,000, 1M a million. Raises SettingsError."""
    number, unit = text.strip().lower().replace("_", ""), 1
    if number and number[-1] in UNITS:
        number, unit = number[:-1], UNITS[number[-1]]
    try:
        return round(float(number) * unit)
    except (ValueError, OverflowError):
        raise SettingsError(f"--lengths has {text!r}; it takes tokens: 500,2k,1M") from None


def _share(text: str) -> float:
    """Per cent as a share. Raises SettingsError."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise SettingsError(f"--depths has {text!r}; it takes per cent: 0,50,100") from None
