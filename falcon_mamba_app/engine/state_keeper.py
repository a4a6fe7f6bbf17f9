"""Gives sequences slots with the best state there is for them, and keeps the states they leave."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import State, StatePool
from falcon_mamba_app.engine.states.store import Snapshot, SnapshotStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StateKeeper:
    """Slots for those who run, snapshots for those who come back."""

    pool: StatePool
    snapshots: SnapshotStore

    def take_slot(self, seq: Sequence) -> None:
        """A slot for the sequence, with its session's longest state that its prompt begins with."""
        seq.slot = self.pool.take()
        if seq.parked is not None:
            self.pool.restore(seq.slot, seq.parked)
            seq.parked = None
            return
        # A prompt that is scored is read in full: its scores are not in the snapshot.
        if seq.session_id is not None and seq.score_prompt is None:
            snapshot = self.snapshots.longest_prefix(seq.session_id, seq.packed_prompt)
            if snapshot is not None:
                self._restore(seq, snapshot)

    def park(self, seq: Sequence) -> bool:
        """Copy the sequence's state out and take its slot back; False where there is no memory."""
        assert seq.slot is not None and not seq.num_in_flight, f"{seq.seq_id=} is at work"
        try:
            seq.parked = self.pool.save(seq.slot)
        except torch.OutOfMemoryError:
            logger.warning(
                "no memory to park %d tokens; they keep their slot", seq.num_computed_tokens
            )
            return False
        self.release_slot(seq)
        return True

    def release_slot(self, seq: Sequence) -> None:
        """Take the slot back, if the sequence has one."""
        if seq.slot is not None:
            self.pool.release(seq.slot)
        seq.slot = None

    def save(self, seq: Sequence) -> None:
        """Keep the state as it is now for the session's next turn."""
        has_state = seq.slot is not None or seq.parked is not None
        if seq.session_id is None or not has_state or seq.num_computed_tokens == 0:
            return
        token_ids = seq.packed_computed
        if self.snapshots.touch(seq.session_id, token_ids):
            return
        try:
            self.snapshots.put(seq.session_id, token_ids, self._copy_of(seq))
        except torch.OutOfMemoryError:
            logger.warning("no memory for a snapshot of %d tokens", seq.num_computed_tokens)

    def _copy_of(self, seq: Sequence) -> State:
        if seq.parked is not None:
            return seq.parked
        assert seq.slot is not None, f"{seq.seq_id=} has no slot"
        return self.pool.save(seq.slot)

    def _restore(self, seq: Sequence, snapshot: Snapshot) -> None:
        """Begin from the snapshot, or from nothing where there is no memory for the copy."""
        assert seq.slot is not None, f"{seq.seq_id=} has no slot"
        try:
            self.pool.restore(seq.slot, snapshot.state)
            seq.num_computed_tokens = snapshot.num_tokens
        except torch.OutOfMemoryError:
            logger.warning("no memory to restore %d tokens; reading again", snapshot.num_tokens)
            self.pool.clear(seq.slot)
