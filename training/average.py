"""The weights between two checkpoints: `python -m training.average FORMER NEW FOLDER --share 0.5`.

A run that goes on from a checkpoint gains what it trains for and forgets some of the rest. As long
as the two lie close together, the weights between them keep most of both.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(former: Path, new: Path, target: Path, share: float) -> Path:
    """`share` of the way from the former's weights to the new ones, beside the former's files."""
    before, after = load_file(former / WEIGHTS), load_file(new / WEIGHTS)
    if {name: t.shape for name, t in before.items()} != {n: t.shape for n, t in after.items()}:
        raise ValueError(f"{former} and {new} hold tensors of other names or shapes")
    between = {
        name: torch.lerp(weight.float(), after[name].float(), share).to(weight.dtype)
        for name, weight in before.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    for path in former.glob("*.json"):
        if not (target / path.name).exists():
            shutil.copy(path, target)
    save_file(between, target / WEIGHTS, metadata={"format": "pt"})
    return target / WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("former", type=Path, help="checkpoint that the run began with")
    parser.add_argument("new", type=Path, help="checkpoint that the run ended with")
    parser.add_argument("folder", type=Path, help="where the weights between go")
    parser.add_argument("--share", type=float, default=0.5, help="of the new ones, from 0 to 1")
    options = parser.parse_args(arguments)
    if not 0.0 <= options.share <= 1.0:
        parser.error(f"--share {options.share}: want a number from 0 to 1")
    average(options.former, options.new, options.folder, options.share)


if __name__ == "__main__":
    main()
