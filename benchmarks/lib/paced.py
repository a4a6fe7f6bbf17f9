"""An engine whose device is a clock: everything but the model is real.

A decode step takes a given time, a prompt a given time per token, and the tokens are drawn at
random. So the cost of host, service and page at a GPU's pace can be measured on a machine without a
GPU. It says nothing about the speed of a GPU.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.runner.model_runner import SampledToken
from falcon_mamba_app.engine.runner.scoring import ScoredToken
from falcon_mamba_app.engine.scheduler import PrefillChunk
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.model.falcon_mamba import FalconMamba

# The times of the 7B on an H100, from `decode.py` and `prefill.py` for one row and long prompts.
STEP_S, CHUNK_S, TOKEN_S = 5.0e-3, 5.0e-3, 1 / 36_000
FIRST_PLAIN_ID = 260  # of the bundled tokenizer: no markup and no single bytes before it


@dataclass(frozen=True, slots=True)
class PacedStep:
    """A step that is done at `ready_s`."""

    rows: list[Sequence]
    ready_s: float
    vocab_size: int

    def wait(self) -> list[list[SampledToken]]:
        time.sleep(max(0.0, self.ready_s - time.perf_counter()))
        drawn = (random.randrange(FIRST_PLAIN_ID, self.vocab_size) for _ in self.rows)
        return [[SampledToken(token_id)] for token_id in drawn]


class PacedRunner:
    """Stands in for a ModelRunner; work is done in the order in which it is launched."""

    def __init__(self, model: FalconMamba, *, step_s: float = STEP_S) -> None:
        self.model = model
        self._vocab_size, self._step_s = model.config.vocab_size, step_s
        self._free_s = 0.0  # the time at which the device finishes its work

    def decode(self, rows: list[Sequence]) -> PacedStep:
        return PacedStep(rows, self._busy_for(self._step_s), self._vocab_size)

    def prefill(self, chunks: list[PrefillChunk]) -> dict[int, list[ScoredToken]]:
        num_tokens = sum(chunk.end - chunk.start for chunk in chunks)
        self._busy_for(CHUNK_S + TOKEN_S * num_tokens)
        return {}

    def has_graph(self, rows: list[Sequence], chunks: list[PrefillChunk]) -> bool:
        """Rows and prompts never share a pass here."""
        return False

    def drop(self, seq: Sequence) -> None:
        """Nothing is kept."""

    def _busy_for(self, seconds: float) -> float:
        self._free_s = max(self._free_s, time.perf_counter()) + seconds
        return self._free_s


def pace(engine: Engine, *, step_s: float = STEP_S) -> None:
    """Replace the engine's device by the clock, one step ahead as on a GPU."""
    engine._runner = PacedRunner(engine.model, step_s=step_s)  # type: ignore[assignment]
    engine._look_ahead = True
