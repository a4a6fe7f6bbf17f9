"""Compiles, before the first request, every kernel that would compile at its first use.

`warm_up` runs an engine's own passes on its scratch slot. `rehearse` does the same with a model of
one empty layer while the real weights are read, because all layers run the same kernels. It only
makes the start faster.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from falcon_mamba_app.engine.runner.passes import Passes
from falcon_mamba_app.engine.runner.step_tensors import Shape, padding
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops import Ops

logger = logging.getLogger(__name__)

# Kernels are compiled for 1 row, for up to 16, 32 and 64, and for more tokens than that. A stage is
# several threads, each with its own list of runs. Two stages in order keep threads from compiling
# the same kernel at the same time.
WARM_UP_STAGES = (
    ((Shape(9), Shape(0, 2, 1)), (Shape(1),), (Shape(0, 65, 1),)),
    ((Shape(17), Shape(0, 17, 1)), (Shape(33), Shape(0, 33, 1))),
)


def warm_up(passes: Passes) -> None:
    """Compile the kernels of every pass, including the passes that will be captured.

    One layer is enough: the others run the same kernels.
    """
    started_s = time.perf_counter()
    if passes.model.device.type == "cuda":
        passes.feed_nothing()  # first, on one thread
    for stage in WARM_UP_STAGES:
        _run_together(passes, stage)
    for shape in passes.shapes_to_capture():
        _run_padding(passes, shape)
    seconds = time.perf_counter() - started_s
    logger.info("warmed up in %.1f s, compilation included", seconds)


def rehearse(
    config: ModelConfig,
    ops: Ops,
    *,
    max_running: int,
    device: torch.device,
    dtype: torch.dtype,
    form: Callable[[FalconMamba], object] = lambda model: None,
) -> None:
    """`warm_up` for a later engine. Never raises: `warm_up` compiles whatever is missing. `form`
    gives the empty model's matrices the form that the real ones will have.
    """
    config = replace(config, num_layers=1, tie_word_embeddings=False)  # an empty table is short
    try:
        pool = StatePool(config, max_running=max_running, device=device, dtype=dtype)
        model = empty_model(config, ops, device, dtype)
        form(model)
        warm_up(Passes(model, pool, eos_token_ids=frozenset()))
    except Exception as error:
        if threading.main_thread().is_alive():
            why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            logger.warning("the rehearsal failed, so the start takes longer: %s", why)


def rehearse_meanwhile(config: ModelConfig, ops: Ops, **options: Any) -> threading.Thread:
    """Start `rehearse`, with its options, on its own thread; join it before any capture."""
    run = partial(rehearse, config, ops, **options)
    # Not a daemon: a process that ends while a thread compiles may crash. At exit the process waits
    # a few seconds for the kernels being compiled; the pool then takes no more work.
    thread = threading.Thread(target=run, name="rehearsal")
    thread.start()
    return thread


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


def _run_together(passes: Passes, stage: tuple[tuple[Shape, ...], ...]) -> None:
    """Run a stage; on a GPU with several threads, because the compilers release the GIL."""
    if passes.model.device.type == "cpu":
        for shapes in stage:
            _run_one_by_one(passes, shapes)
        return
    with ThreadPoolExecutor(len(stage)) as threads:
        list(threads.map(partial(_run_one_by_one, passes), stage))


def _run_one_by_one(passes: Passes, shapes: tuple[Shape, ...]) -> None:
    for shape in shapes:
        if shape.num_rows < passes.pool.num_slots:
            _run(passes, shape)


@torch.inference_mode()
def _run(passes: Passes, shape: Shape) -> None:
    inputs = padding(shape)
    if shape.num_tokens:
        inputs[-1] = shape.num_tokens  # where the one sequence ends
    step = passes.run(passes.to_device(inputs), shape, 1)
    if not shape.num_rows:
        passes.model.prompt_logits(step.hidden[-1:])


@torch.inference_mode()
def _run_padding(passes: Passes, shape: Shape) -> None:
    passes.run(passes.to_device(padding(shape)), shape, 1)
