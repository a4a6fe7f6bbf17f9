"""Make `training/data` from the project's shared data: `python -m training.prepare SOURCE`.

The plain text is cut: it is a few hundredths of what a run reads, so a part of the whole, which is
in no order, is enough and makes less to carry to a rented machine.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
from pathlib import Path

import numpy as np

from training.rows import END_OF_TEXT, Tokens
from training.streams import read_token_file

DATA = Path(__file__).parent / "data"
WHOLE = ("tokenizer.json", "chat_human.bin.xz", "eval_synth.jsonl")
PLAIN = "plain_simple.bin.xz"
MAX_PLAIN_TOKENS = 5_000_000


def first_documents(tokens: Tokens, max_tokens: int) -> Tokens:
    """As many whole documents from the start as have at most `max_tokens` together."""
    ends = np.flatnonzero(tokens[:max_tokens] == END_OF_TEXT)
    if not len(ends):
        raise ValueError(f"the first document has more than {max_tokens} tokens")
    return tokens[: ends[-1] + 1]


def prepare(source: Path, target: Path, *, max_plain_tokens: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in WHOLE:
        shutil.copyfile(source / name, target / name)
    plain = first_documents(read_token_file(source / PLAIN), max_plain_tokens)
    packed = lzma.compress(plain.tobytes(), preset=9 | lzma.PRESET_EXTREME)
    (target / PLAIN).write_bytes(packed)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="../shared/nano/data")
    parser.add_argument("--target", type=Path, default=DATA)
    parser.add_argument("--max-plain-tokens", type=int, default=MAX_PLAIN_TOKENS)
    options = parser.parse_args(arguments)
    prepare(options.source, options.target, max_plain_tokens=options.max_plain_tokens)


if __name__ == "__main__":
    main()
