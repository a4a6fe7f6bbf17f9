"""What is read from a session's states without running anything: for its file and its picture."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.sketch import sketch
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.engine.worker import SessionStates, Worker
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.service.local.kept_states import KeptStates


def newest_snapshot(states: SessionStates, session_id: str) -> Snapshot | None:
    """The session's newest snapshot, arrived in host memory."""
    snapshot = states.snapshots.newest(session_id)
    if snapshot is not None:
        snapshot.state.wait()
    return snapshot


async def nearest_state(
    worker: Worker, kept: KeptStates, session_id: str, token_ids: Sequence[int] | None
) -> Snapshot | None:
    """The session's state with the longest prefix of the ids, or without them the newest, from host
    memory or the store.
    """
    # One more id, because a prefix always leaves one to feed.
    packed = None if token_ids is None else pack_token_ids([*token_ids, 0])

    def in_host_memory(states: SessionStates) -> Snapshot | None:
        if packed is None:
            return states.snapshots.newest(session_id)
        return states.snapshots.longest_prefix(session_id, packed)

    snapshot = await asyncio.wrap_future(worker.call(in_host_memory))
    known = 0 if snapshot is None else snapshot.num_tokens
    if snapshot is None or (packed and known < len(packed) // ID_BYTES - 1):
        return await kept.stored(session_id, packed, beyond=known) or snapshot
    return snapshot


async def existing_state(
    worker: Worker, kept: KeptStates, session_id: str, token_ids: Sequence[int] | None = None
) -> Snapshot:
    """The same. Raises NotFound where there is none."""
    snapshot = await nearest_state(worker, kept, session_id, token_ids)
    if snapshot is None:
        raise NotFound("this session has no state here: it has read nothing, or was evicted")
    return snapshot


def picture(states: SessionStates, session_id: str) -> str | None:
    """The picture of the reply being written, else of the newest snapshot; None without either."""
    running = states.running_state(session_id)
    if running is not None:
        return sketch(running)
    snapshot = newest_snapshot(states, session_id)
    return None if snapshot is None else sketch(snapshot.state.ssm)


async def picture_of(worker: Worker, session_id: str) -> str | None:
    """The `picture`, asked of the engine."""
    return await asyncio.wrap_future(worker.call(lambda states: picture(states, session_id)))


async def put_state(worker: Worker, session_id: str, snapshot: Snapshot) -> None:
    """Give the session the snapshot."""

    def put(states: SessionStates) -> None:
        states.snapshots.put(session_id, snapshot.packed_token_ids, snapshot.state)

    await asyncio.wrap_future(worker.call(put))
