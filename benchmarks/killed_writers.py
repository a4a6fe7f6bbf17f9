"""What is left of conversations whose writer is killed (SIGKILL) at a random point, many times.

    python -m benchmarks.killed_writers [--kills 200] [--seed 1] [--save NAME]

Each writer records replies as the page does, without a model; after its end the library is opened
by another process. Every turn that was told to be over must be there, with its ids; of the reply
that was being written every piece that was told to be written; and that reply must be broken off at
once. Prints a table and one JSON line; the exit status is 1 where something was lost.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import date
from pathlib import Path

import sqlalchemy

from benchmarks.lib.report import Table, finish, machine
from falcon_mamba_app.library.database import FILE_NAME

WRITERS = "benchmarks.lib.killed_writers"


def measure(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Counts over all kills."""
    command = [sys.executable, "-m", WRITERS, str(folder), str(kills), str(seed)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(told))


def is_sound(folder: Path) -> bool:
    """Whether SQLite finds no fault in the file."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        return bool(database.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save")
    options = parser.parse_args()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = measure(folder, options.kills, options.seed)
        sound, left = is_sound(folder), len(list(folder.glob("*.writer-*")))
    took_s = time.monotonic() - started_s
    lost = counts["lost_turns"] + counts["lost_words"] + counts["still_writing"]
    table = Table("what", "seen", words=1)
    table.add("kills", str(options.kills))
    table.add("turns that were over", str(counts["turns"]))
    table.add("of these lost, or without their ids", str(counts["lost_turns"]))
    table.add("replies that were being written, and have words", str(counts["broken_off"]))
    table.add("of these without a piece that was written", str(counts["lost_words"]))
    table.add('of these still "writing" at the next start', str(counts["still_writing"]))
    table.add("SQLite's check of the file", "ok" if sound else "damaged")
    facts = {
        "device": machine(),
        "versions": f"SQLite {sqlite3.sqlite_version}, SQLAlchemy {sqlalchemy.__version__}",
        "command": " ".join(["python -m benchmarks.killed_writers", *sys.argv[1:]]),
        "date": str(date.today()),
        "took": f"{took_s:.0f} s",
    }
    is_kept = sound and counts["turns"] > 0 and not lost and left <= 1
    figures = {**counts, "kills": options.kills, "files_left": left, "is_kept": is_kept}
    finish("Writers killed at random points", facts, table, figures, options.save)
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
