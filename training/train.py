"""Train the bundled model: `python -m training.train --device cuda --compile --out OUT`.

On several GPUs: `torchrun --nproc-per-node=N -m training.train …`. The newest
weights are in OUT at any time, in parts; `--resume` goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from training.export import write_parts
from training.mixture import Batch, Mixture
from training.model import PRESETS
from training.probe import recall_probes, reply_batches, told_probe
from training.ranks import Ranks
from training.rows import Encoder
from training.schedule import Clock, learning_rate
from training.trainer import PEAK_LEARNING_RATE, Trainer

logger = logging.getLogger(__name__)
DATA = Path(__file__).parent / "data"
AGREE_EVERY = 10  # steps


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="token files, tokenizer.json")
    parser.add_argument("--held-out", type=Path, help="conversations, one JSON object a line")
    parser.add_argument("--out", type=Path, default=Path("out"), help="for weights and log")
    parser.add_argument("--checkpoint", type=Path, help="file to write and, --resume, to read")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--weights", type=Path, help="checkpoint folder to begin with")
    parser.add_argument("--first-shard", type=int, default=0, help="100 and more are not easy")
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--minutes", type=float, default=30.0, help="of wall time for the steps")
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--rows", type=int, default=32, help="of one step on one device")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a row")
    parser.add_argument("--held-out-rows", type=int, default=96)
    parser.add_argument("--evaluate-s", type=float, default=30.0, help="seconds between looks")
    parser.add_argument("--lr", type=float, default=PEAK_LEARNING_RATE)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--workers", type=int, default=2, help="that make conversations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="fuse the element-wise passes")
    options = parser.parse_args(arguments)
    if options.resume and options.checkpoint is None:
        parser.error("--resume needs --checkpoint FILE: where the stopped run wrote its own")
    return options


def held_out_batches(options: argparse.Namespace, encoder: Encoder) -> list[Batch]:
    if options.held_out is None:
        return []
    return reply_batches(
        options.held_out,
        encoder,
        length=options.length,
        num_rows=options.held_out_rows,
        rows_at_once=options.rows,
    )


class Run:
    """The loop: batches in, checkpoints and exports out."""

    def __init__(self, options: argparse.Namespace, ranks: Ranks) -> None:
        self.options, self.ranks = options, ranks
        saved = self._saved()
        self.mixture = Mixture(
            options.data,
            seed=options.seed,
            length=options.length,
            num_workers=options.workers,
            rank=ranks.rank,
            num_ranks=ranks.count,
            first_shard=options.first_shard,
            state=saved["mixtures"][ranks.rank] if saved else None,
        )
        self.trainer = Trainer(
            PRESETS[options.preset],
            ranks,
            seed=options.seed,
            is_compiled=options.compile,
            optimizer=options.optimizer,
        )
        encoder = Encoder(options.data / "tokenizer.json")
        self.held_out = held_out_batches(options, encoder)
        self.probes = recall_probes(
            encoder,
            length=options.length,
            num_rows=options.held_out_rows,
            rows_at_once=options.rows,
        )
        self.told = told_probe(encoder, length=options.length, num_rows=options.rows)
        self.clock = Clock(options.steps, options.minutes * 60)
        self.step = 0
        self._looked_s = time.monotonic()
        self._looked_step = 0
        if saved:
            self.trainer.restore(saved["trainer"])
            self.step = saved["step"]
            self.clock.spent_s = saved["elapsed_s"]
        elif options.weights:
            self.trainer.start(load_file(options.weights / "model.safetensors"))
        self._losses: list[torch.Tensor] = []

    def _saved(self) -> dict[str, Any] | None:
        if not self.options.resume:
            return None
        saved: dict[str, Any] = torch.load(self.options.checkpoint, map_location="cpu")
        if saved["optimizer"] != self.options.optimizer:
            raise SystemExit(
                f"{self.options.checkpoint} was written with --optimizer {saved['optimizer']};"
                " a run is resumed with its own"
            )
        return saved

    def loop(self) -> None:
        progress = self.ranks.agree(self.clock.progress(self.step))
        while progress < 1.0:
            # Steps between two looks at the clock, which is the first process's.
            progress = self.advance(1 if self.options.steps is not None else AGREE_EVERY)
            if self._is_time_to_look():
                self.look(progress)
        if self.step > self._looked_step:
            self.look(progress)

    def advance(self, num_steps: int) -> float:
        """Train so many steps at one learning rate; returns the progress after them."""
        progress = self.ranks.agree(self.clock.progress(self.step))
        rate = learning_rate(self.step, progress, self.options.lr)
        for _ in range(num_steps):
            batch = self.mixture.batch(self.options.rows, progress, self.ranks.device)
            self._losses.append(self.trainer.step(batch, rate))
            self.step += 1
        return self.ranks.agree(self.clock.progress(self.step))

    def _is_time_to_look(self) -> bool:
        waited_s = time.monotonic() - self._looked_s
        return self.ranks.agree(waited_s) > float(self.options.evaluate_s)

    def look(self, progress: float) -> None:
        """Measure on held-out conversations, log, export, save a checkpoint."""
        losses = torch.stack(self._losses)
        trained = self._trained_line()
        held_out = self.trainer.held_out_loss(self.held_out) if self.held_out else float("nan")
        recalled = {
            f"recall_{probe.distance}": round(
                probe.accuracy(self.trainer.model, self.ranks.device), 3
            )
            for probe in self.probes
        }
        recalled["told"] = round(self.told.accuracy(self.trainer.model, self.ranks.device), 3)
        self._losses = []
        if self.ranks.is_first:
            self._report(
                {
                    "step": self.step,
                    "progress": round(progress, 4),
                    "elapsed_s": round(self.clock.elapsed_s, 1),
                    "loss": round(losses[-50:].mean().item(), 4),
                    "held_out_loss": round(held_out, 4),
                    **recalled,
                    **trained,
                }
            )
            if math.isfinite(held_out) or not self.held_out:
                write_parts(
                    self.options.out, self.trainer.model.state_dict(), self.trainer.model.config
                )
        self._save()
        self._looked_s, self._looked_step = time.monotonic(), self.step

    def _trained_line(self) -> dict[str, float]:
        tokens = self.options.rows * self.options.length * self.ranks.count
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - self._looked_s
        speed = (self.step - self._looked_step) * tokens / seconds
        line = {"tokens": self.step * tokens, "tokens_per_s": round(speed)}
        if self.ranks.device.type == "cuda":
            line["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        return line

    def _report(self, figures: dict[str, float]) -> None:
        line = json.dumps(figures)
        logger.info("%s", line)
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _save(self) -> None:
        if self.options.checkpoint is None:
            return
        mixtures = self._gather(self.mixture.state())
        if not self.ranks.is_first:
            return
        partial = self.options.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "trainer": self.trainer.state(),
                "optimizer": self.options.optimizer,
                "mixtures": mixtures,
                "step": self.step,
                "elapsed_s": self.clock.elapsed_s,
            },
            partial,
        )
        partial.rename(self.options.checkpoint)

    def _gather(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        if self.ranks.count == 1:
            return [state]
        states: list[Any] = [None] * self.ranks.count
        torch.distributed.all_gather_object(states, state)
        return states


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    ranks = Ranks.join(options.device)
    run = Run(options, ranks)
    try:
        run.loop()
    finally:
        run.mixture.close()
        ranks.leave()


if __name__ == "__main__":
    main()
