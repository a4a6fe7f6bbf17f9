"""What a GPU needs besides weights, made ready while the weights are read.

The engine's passes run on a model of one empty layer: all layers run the same kernels, so those are
compiled and loaded by then. Host memory for snapshots is pinned. All this changes nothing but the
time of the start: what is left out here, the engine does itself.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from falcon_mamba_app.engine.model_runner import ModelRunner
from falcon_mamba_app.engine.state_pool import StatePool, reserve_host
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import Ops

logger = logging.getLogger(__name__)


class Rehearsal:
    """Runs on threads of its own from the start; `wait` for their end before capturing graphs."""

    def __init__(
        self,
        config: ModelConfig,
        ops: Ops,
        *,
        max_running: int,
        max_snapshot_bytes: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._config, self._ops, self._max_running = replace(config, num_layers=1), ops, max_running
        self._device, self._dtype = device, dtype
        reserve = partial(reserve_host, config, dtype, max_snapshot_bytes)
        # Daemons: a process that is told to end must not wait for a compiler.
        self._threads = [
            threading.Thread(target=run, name="rehearsal", daemon=True)
            for run in (self._run_passes, reserve)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def wait(self) -> None:
        started_s = time.perf_counter()
        for thread in self._threads:
            thread.join()
        torch.cuda.empty_cache()  # 0.8 GB of the 7B's shapes
        logger.info("waited %.1f s for the rehearsal", time.perf_counter() - started_s)

    def _run_passes(self) -> None:
        try:
            pool = StatePool(
                self._config, max_running=self._max_running, device=self._device, dtype=self._dtype
            )
            model = empty_model(self._config, self._ops, self._device, self._dtype)
            ModelRunner(model, pool, eos_token_ids=frozenset(), captures=False)
        except torch.OutOfMemoryError:
            logger.warning("no memory for the rehearsal; the start takes longer")


def empty_model(
    config: ModelConfig, ops: Ops, device: torch.device, dtype: torch.dtype
) -> FalconMamba:
    """A model of zeros that knows one token, 0."""
    with torch.device("meta"):
        model = FalconMamba(config, ops)
        model.backbone.embeddings = nn.Embedding(1, config.hidden_size)
    model.to(dtype).to_empty(device=device)
    for weight in model.parameters():
        nn.init.zeros_(weight)
    model.prepare()
    return model
