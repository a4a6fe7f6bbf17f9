"""Builds an engine from a model and its limits, ready for its first sequence."""

from __future__ import annotations

from falcon_mamba_app.engine.engine import Engine
from falcon_mamba_app.engine.runner.model_runner import make_runner
from falcon_mamba_app.engine.scheduler import Scheduler
from falcon_mamba_app.engine.state_keeper import StateKeeper
from falcon_mamba_app.engine.states.pool import StatePool, reserve_host
from falcon_mamba_app.engine.states.store import MAX_PER_SESSION, SnapshotStore
from falcon_mamba_app.model.falcon_mamba import FalconMamba


def build_engine(
    model: FalconMamba,
    *,
    eos_token_ids: frozenset[int],
    max_running: int,
    max_prefill_tokens: int,
    max_snapshot_bytes: int,
    max_session_snapshots: int = MAX_PER_SESSION,
    max_mixed_prefill_tokens: int | None = None,
    look_ahead: bool | None = None,
    speculates: bool = False,
) -> Engine:
    """Take the memory, compile the kernels and capture the graphs, before any sequence comes.

    `look_ahead` is for tests; None, which is the default, looks ahead on a GPU. `speculates` has an
    effect where operations can verify tokens, and only without looking ahead.
    """
    is_on_gpu = model.device.type == "cuda"
    look_ahead = is_on_gpu if look_ahead is None else look_ahead
    speculates = speculates and not look_ahead and model.ops.num_verifiable_tokens > 1
    scheduler = Scheduler(
        max_running=max_running,
        max_prefill_tokens=max_prefill_tokens,
        max_mixed_prefill_tokens=max_mixed_prefill_tokens,
    )
    pool = StatePool(model.config, max_running=max_running, device=model.device, dtype=model.dtype)
    runner = make_runner(model, pool, eos_token_ids=eos_token_ids, speculates=speculates)
    # Last: when torch captures a graph, it frees pinned memory that is not in use.
    if is_on_gpu:
        reserve_host(model.config, model.dtype, max_snapshot_bytes)
    snapshots = SnapshotStore(max_bytes=max_snapshot_bytes, max_per_session=max_session_snapshots)
    return Engine(
        runner,
        scheduler,
        StateKeeper(pool, snapshots),
        eos_token_ids=eos_token_ids,
        look_ahead=look_ahead,
    )
