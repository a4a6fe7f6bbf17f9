"""Passes of the model captured as CUDA graphs for a set of shapes, and replayed.

A pass is several hundred launches: for one token of the 7B model the host needs 20 ms for them, the
device 5. A graph is one launch. It holds the whole pass: the inputs of each row, the model, the
choice of the token, and the transfer of that token to the next step. Capture touches the scratch
slot alone, never a live state.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from falcon_mamba_app.engine.runner.step_tensors import Shape, StepTensors, padding
from falcon_mamba_app.ops import Ops

logger = logging.getLogger(__name__)

# Prompt tokens of one pass. Above this the GPU is as slow as the launches; a graph gains nothing.
PROMPT_TOKENS = (64, 128, 256, 512, 1024)
MIXED_PROMPT_TOKENS = (64, 128, 256)
MIXED_ROWS = (8, 32)
# Input buffers per shape: the host may run this many passes ahead.
NUM_TURNS = 4
# Prompts that share a pass. The programs of absent prompts return at once.
MAX_PROMPTS = 8


class PinnedInputs:
    """Pinned host memory for the inputs of a pass, allocated once, because pinning is slow.

    Several buffers take turns, because the device may be several passes behind the host.
    """

    def __init__(self, num_values: int) -> None:
        buffers = [torch.empty(num_values, pin_memory=True) for _ in range(NUM_TURNS)]
        self._turns = cycle([(buffer, torch.cuda.Event()) for buffer in buffers])

    def send(self, inputs: Tensor, to: Tensor) -> None:
        """Copy to the device, without waiting for it unless it is NUM_TURNS passes behind."""
        buffer, has_left = next(self._turns)
        has_left.synchronize()
        buffer.copy_(inputs)
        to.copy_(buffer, non_blocking=True)
        has_left.record()


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    host: PinnedInputs
    step: StepTensors


class Graphs:
    """A graph for each of `shapes`; `run` is a pass over inputs that `step_tensors.pack` made. All
    its kernels are compiled already, because nothing may be compiled during a capture.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Shape], StepTensors],
        shapes: list[Shape],
        device: torch.device,
    ) -> None:
        self._graphs: dict[Shape, _Captured] = {}
        with _no_garbage_collection():
            self._capture_all(run, shapes, device)

    @property
    def shapes(self) -> list[Shape]:
        return list(self._graphs)

    def replay(self, inputs: Tensor, shape: Shape) -> StepTensors:
        """Run a pass over `inputs`, in host memory. Any later pass overwrites its result."""
        captured = self._graphs[shape]
        captured.host.send(inputs, captured.inputs)
        captured.graph.replay()
        return captured.step

    @torch.inference_mode()
    def _capture_all(
        self,
        run: Callable[[Tensor, Shape], StepTensors],
        shapes: list[Shape],
        device: torch.device,
    ) -> None:
        # Largest first: later captures then fit in the memory that the first one reserved.
        shapes = sorted(shapes, key=lambda s: s.num_rows + s.num_tokens, reverse=True)
        buffers = {shape: padding(shape).to(device) for shape in shapes}
        started_s = time.perf_counter()
        free_before, _ = torch.cuda.mem_get_info()
        memory = torch.cuda.graph_pool_handle()
        for shape in shapes:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory):
                step = run(buffers[shape], shape)
            host = PinnedInputs(len(buffers[shape]))
            self._graphs[shape] = _Captured(graph, buffers[shape], host, step)
        torch.cuda.synchronize()
        free_after, _ = torch.cuda.mem_get_info()
        logger.info(
            "captured %d shapes of a pass (up to %d rows, %d prompt tokens) in %.1f s, %.2f GiB",
            len(shapes),
            max(shape.num_rows for shape in shapes),
            max(shape.num_tokens for shape in shapes),
            time.perf_counter() - started_s,
            (free_before - free_after) / 2**30,
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage first, then not until the end: a graph that is freed during the capture of
    another one, such as a previous engine's, breaks that capture.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def shapes_for(ops: Ops, max_rows: int) -> list[Shape]:
    """The shapes to capture for an engine of `max_rows` rows, where the operations allow it."""
    return [
        shape
        for shape in wanted_shapes(max_rows)
        if (ops.can_capture_steps or not shape.num_rows)
        and (ops.can_capture_prompts or not shape.num_tokens)
    ]


def wanted_shapes(max_rows: int) -> list[Shape]:
    """The shapes that are worth a graph for an engine of `max_rows` rows."""
    decode = [Shape(rows) for rows in ladder(max_rows)]
    prefill = [Shape(0, tokens, MAX_PROMPTS) for tokens in PROMPT_TOKENS]
    if max_rows == 1:  # nobody decodes while a prompt is read
        return decode + prefill
    mixed_rows = {min(rows, max_rows) for rows in (*MIXED_ROWS, max_rows)}
    mixed = [
        Shape(rows, tokens, MAX_PROMPTS)
        for rows in sorted(mixed_rows)
        for tokens in MIXED_PROMPT_TOKENS
    ]
    return decode + prefill + mixed


def smallest_shape(
    shapes: list[Shape], num_rows: int, num_tokens: int, num_prompts: int
) -> Shape | None:
    """The shape that holds this much with the least padding, or None if none does.

    Rows alone and prompts alone have shapes of their own.
    """
    fitting = [
        shape
        for shape in shapes
        if shape.num_rows >= num_rows
        and shape.num_tokens >= num_tokens
        and shape.num_prompts >= num_prompts
        and bool(shape.num_rows) == bool(num_rows)
        and bool(shape.num_tokens) == bool(num_tokens)
    ]
    return min(fitting, key=lambda shape: shape.num_rows + shape.num_tokens, default=None)


def ladder(max_rows: int) -> list[int]:
    """1, 2, 4, 8 rows and multiples of 8 after that; the last holds `max_rows`."""
    sizes = [size for size in (1, 2, 4) if size < max_rows]
    return [*sizes, *range(8, max_rows, 8), max_rows] if max_rows > 4 else [*sizes, max_rows]
