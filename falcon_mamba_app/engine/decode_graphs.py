"""The decode step captured as CUDA graphs at a ladder of batch sizes, and replayed.

A step is some hundreds of launches, which take the host longer than they take the device; a graph
is one. All but sampling is inside. Capture touches the scratch slot alone, never a live state.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from falcon_mamba_app.engine.state_pool import SCRATCH_SLOT, StatePool
from falcon_mamba_app.model.falcon_mamba import Batch, FalconMamba

logger = logging.getLogger(__name__)

NUM_WARM_UPS = 2


class DecodeGraphs:
    """Graphs for 1, 2, 4, 8 rows and multiples of 8 after that, up to all slots."""

    def __init__(self, model: FalconMamba, pool: StatePool) -> None:
        self._model, self._pool = model, pool
        self._batch_sizes = _ladder(pool.num_slots - 1)
        largest = self._batch_sizes[-1]
        self._token_ids = torch.zeros(largest, dtype=torch.int64, device=model.device)
        self._slots = torch.full_like(self._token_ids, SCRATCH_SLOT)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._capture_all()

    def logits(self, token_ids: Tensor, slots: Tensor) -> Tensor:
        """Feed one token to each slot, advancing its state.

        Args:
            token_ids, slots: (b,) int64 on the device, b at most the number of slots.

        Returns:
            (b, v) fp32, overwritten by the next call.
        """
        num_rows = token_ids.shape[0]
        batch_size = next(size for size in self._batch_sizes if size >= num_rows)
        self._token_ids[:num_rows] = token_ids
        self._slots[:num_rows] = slots
        self._slots[num_rows:batch_size] = SCRATCH_SLOT
        graph, logits = self._graphs[batch_size]
        graph.replay()
        return logits[:num_rows]

    @torch.inference_mode()
    def _capture_all(self) -> None:
        started_s = time.perf_counter()
        free_before, _ = torch.cuda.mem_get_info()
        memory = torch.cuda.graph_pool_handle()
        # Largest first: later captures then fit in the memory that the first one reserved.
        for batch_size in reversed(self._batch_sizes):
            for _ in range(NUM_WARM_UPS):
                self._step(batch_size)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory):
                logits = self._step(batch_size)
            self._graphs[batch_size] = graph, logits
        torch.cuda.synchronize()
        free_after, _ = torch.cuda.mem_get_info()
        logger.info(
            "captured %d decode graphs (1…%d rows) in %.1f s, %.2f GiB",
            len(self._batch_sizes),
            self._batch_sizes[-1],
            time.perf_counter() - started_s,
            (free_before - free_after) / 2**30,
        )

    def _step(self, batch_size: int) -> Tensor:
        batch = Batch(self._token_ids[:batch_size], self._slots[:batch_size])
        hidden = self._model(batch, self._pool.conv_states, self._pool.ssm_states)
        return self._model.logits(hidden, is_step=True)


def _ladder(max_rows: int) -> list[int]:
    """Batch sizes to capture, ascending; the last holds `max_rows`."""
    sizes = [size for size in (1, 2, 4) if size < max_rows]
    return [*sizes, *range(8, max_rows, 8), max_rows] if max_rows > 4 else [*sizes, max_rows]
