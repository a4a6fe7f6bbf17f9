"""What is read from a session's states without running anything: for its file and its picture."""

from __future__ import annotations

from falcon_mamba_app.engine.states.sketch import sketch
from falcon_mamba_app.engine.states.store import Snapshot
from falcon_mamba_app.engine.worker import SessionStates


def newest_snapshot(states: SessionStates, session_id: str) -> Snapshot | None:
    """The session's newest snapshot, arrived in host memory."""
    snapshot = states.snapshots.newest(session_id)
    if snapshot is not None:
        snapshot.state.wait()
    return snapshot


def nearest_snapshot(
    states: SessionStates, session_id: str, packed_ids: bytes | None
) -> Snapshot | None:
    """The session's snapshot with the longest prefix of these ids, or without them the newest."""
    if packed_ids is None:
        return states.snapshots.newest(session_id)
    return states.snapshots.longest_prefix(session_id, packed_ids)


def picture(states: SessionStates, session_id: str) -> str | None:
    """Of the reply being written, or else of the newest snapshot; None without either."""
    running = states.running_state(session_id)
    if running is not None:
        return sketch(running)
    snapshot = newest_snapshot(states, session_id)
    return None if snapshot is None else sketch(snapshot.state.ssm)
