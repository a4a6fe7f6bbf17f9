"""Gives each sequence a slot with the best saved state, and saves the states of sequences."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.engine.states.pool import State, StatePool
from falcon_mamba_app.engine.states.store import Snapshot, SnapshotStore
from falcon_mamba_app.errors import is_lack_of_memory

logger = logging.getLogger(__name__)

# Reading fewer tokens is faster than copying a state out and back.
MIN_SHARED_TOKENS = 32


@dataclass(frozen=True, slots=True)
class StateKeeper:
    """Slots for running sequences, snapshots for sessions that return."""

    pool: StatePool
    snapshots: SnapshotStore

    def take_slot(self, seq: Sequence) -> None:
        """Take a slot for the sequence, with the longest saved state that begins its prompt."""
        seq.slot = self.pool.take()
        if seq.parked is not None:
            self.pool.restore(seq.slot, seq.parked)
            seq.parked = None
            return
        # A prompt that is scored is read in full: its scores are not in the snapshot.
        if seq.score_prompt is None:
            found = [
                self.snapshots.longest_prefix(origin, seq.packed_prompt) for origin in seq.origins
            ]
            known = [snapshot for snapshot in found if snapshot is not None]
            if known:
                self._restore(seq, max(known, key=lambda snapshot: snapshot.num_tokens))
        self._choose_save_points(seq)

    def park(self, seq: Sequence) -> bool:
        """Copy the sequence's state out and take its slot back; False if memory is short."""
        assert seq.slot is not None and not seq.num_in_flight, f"{seq.seq_id=} is at work"
        try:
            seq.parked = self.pool.save(seq.slot)
        except Exception as error:
            _refuse_other_than_lack_of_memory(error)
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
        """Save the state as it is now, for the next turn of the session or of the owner."""
        if seq.is_aside:
            return
        if seq.session_id is not None:
            self._put(seq, seq.session_id)
        elif seq.reuse_id is not None:
            self._put(seq, seq.reuse_id, is_spare=True)

    def save_for_others(self, seq: Sequence) -> None:
        """Save the state if other requests of the owner may begin at this place."""
        if seq.reuse_id is not None and seq.num_computed_tokens in seq.save_points:
            self._put(seq, seq.reuse_id, is_spare=True)

    def forget_origins(self, seq: Sequence) -> None:
        """Drop all states that this one may have begun from."""
        for origin in seq.origins:
            self.snapshots.forget(origin)

    def _choose_save_points(self, seq: Sequence) -> None:
        """Choose the requested places, and the one where the prompt first differs from earlier
        prompts.
        """
        if seq.reuse_id is None:
            return
        fork = self.snapshots.most_in_common(seq.reuse_id, seq.packed_prompt)
        first, end = seq.num_computed_tokens + MIN_SHARED_TOKENS, seq.num_prefill_tokens
        seq.save_points = tuple(sorted({p for p in (*seq.save_points, fork) if first <= p < end}))

    def _put(self, seq: Sequence, session_id: str, *, is_spare: bool = False) -> None:
        has_state = seq.slot is not None or seq.parked is not None
        if not has_state or seq.num_computed_tokens == 0:
            return
        token_ids = seq.packed_computed
        if self.snapshots.touch(session_id, token_ids):
            return
        try:
            self.snapshots.put(session_id, token_ids, self._copy_of(seq), is_spare=is_spare)
        except Exception as error:
            _refuse_other_than_lack_of_memory(error)
            logger.warning("no memory for a snapshot of %d tokens", seq.num_computed_tokens)

    def _copy_of(self, seq: Sequence) -> State:
        if seq.parked is not None:
            return seq.parked
        assert seq.slot is not None, f"{seq.seq_id=} has no slot"
        return self.pool.save(seq.slot)

    def _restore(self, seq: Sequence, snapshot: Snapshot) -> None:
        """Begin from the snapshot, or from an empty state if there is no memory for the copy."""
        assert seq.slot is not None, f"{seq.seq_id=} has no slot"
        try:
            self.pool.restore(seq.slot, snapshot.state)
            seq.num_computed_tokens = snapshot.num_tokens
        except Exception as error:
            _refuse_other_than_lack_of_memory(error)
            logger.warning("no memory to restore %d tokens; reading again", snapshot.num_tokens)
            self.pool.clear(seq.slot)


def _refuse_other_than_lack_of_memory(error: Exception) -> None:
    """Raises every other error. A card and the system's allocator say it by different types."""
    if not is_lack_of_memory(error):
        raise error
