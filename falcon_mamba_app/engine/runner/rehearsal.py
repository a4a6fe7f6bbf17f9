"""The engine's passes on a model of one empty layer, while the weights of the real one are read.

All layers run the same kernels, so those are compiled and loaded by the time the weights are there.
It changes nothing but that time: what it leaves out, the engine's own warm-up does.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import torch
from torch import nn

from falcon_mamba_app.engine.runner.model_runner import ModelRunner
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import Ops

logger = logging.getLogger(__name__)


class Rehearsal:
    """Runs on a thread of its own from the start; `wait` for its end before capturing graphs."""

    def __init__(
        self,
        config: ModelConfig,
        ops: Ops,
        *,
        max_running: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._config, self._ops, self._max_running = replace(config, num_layers=1), ops, max_running
        self._device, self._dtype = device, dtype
        # Not a daemon: a process may crash that ends while a thread compiles. When the process is
        # told to end it waits for what compiles now, a few seconds; no pool takes more work then.
        self._thread = threading.Thread(target=self._run, name="rehearsal")
        self._thread.start()

    def wait(self) -> None:
        started_s = time.perf_counter()
        self._thread.join()
        torch.cuda.empty_cache()  # 0.8 GB of the 7B's shapes
        logger.info("waited %.1f s for the rehearsal", time.perf_counter() - started_s)

    def _run(self) -> None:
        try:
            pool = StatePool(
                self._config, max_running=self._max_running, device=self._device, dtype=self._dtype
            )
            model = empty_model(self._config, self._ops, self._device, self._dtype)
            ModelRunner(model, pool, eos_token_ids=frozenset(), captures=False)
        except Exception as error:
            if threading.main_thread().is_alive():
                why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                logger.warning("the rehearsal failed, so the start takes longer: %s", why)


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
