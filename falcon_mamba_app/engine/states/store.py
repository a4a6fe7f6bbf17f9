"""States of idle sessions, found again by the tokens they have read.

A state cannot be rewound, so continue, retry, undo, edit and branch are all one operation: find the
session's snapshot that has read the longest prefix of what is now asked. The store is only an
optimisation; answers are the same with it emptied. It knows no text and no device.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass

from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.pool import State

TokenIds = SequenceABC[int] | bytes  # bytes: as `pack_token_ids` packs them


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state and the tokens it has consumed, packed as 32-bit integers."""

    packed_token_ids: bytes
    state: State

    @property
    def num_tokens(self) -> int:
        return len(self.packed_token_ids) // ID_BYTES

    @property
    def token_ids(self) -> list[int]:
        return array("i", self.packed_token_ids).tolist()

    @property
    def nbytes(self) -> int:
        return self.state.nbytes + len(self.packed_token_ids)


class SnapshotStore:
    """Snapshots of all sessions under one budget in bytes; the least recently used go first."""

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._sessions: dict[str, dict[bytes, Snapshot]] = {}
        self._order: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # least recent first

    def __len__(self) -> int:
        return len(self._order)

    def touch(self, session_id: str, token_ids: TokenIds) -> bool:
        """Mark the snapshot of exactly these tokens as used now; False when there is none."""
        key = session_id, pack_token_ids(token_ids)
        if key in self._order:
            self._order.move_to_end(key)
        return key in self._order

    def put(self, session_id: str, token_ids: TokenIds, state: State) -> None:
        """Keep the state under its tokens, evicting others as needed; one too large is dropped."""
        snapshot = Snapshot(pack_token_ids(token_ids), state)
        if snapshot.nbytes > self.max_bytes:
            return
        self._remove(session_id, snapshot.packed_token_ids)
        while self.num_bytes + snapshot.nbytes > self.max_bytes:
            self._remove(*next(iter(self._order)))
        self._sessions.setdefault(session_id, {})[snapshot.packed_token_ids] = snapshot
        self._order[session_id, snapshot.packed_token_ids] = None
        self.num_bytes += snapshot.nbytes

    def longest_prefix(self, session_id: str, token_ids: TokenIds) -> Snapshot | None:
        """The session's snapshot that has consumed the most of `token_ids`, or None.

        Never all of them: at least one token is left to feed, since a state alone gives no logits.
        """
        packed = pack_token_ids(token_ids)
        snapshots = self._sessions.get(session_id, {})
        # Longest first, so that one long comparison is all there is to it.
        for key in sorted(snapshots, key=len, reverse=True):
            if len(key) < len(packed) and packed.startswith(key):
                self._order.move_to_end((session_id, key))
                return snapshots[key]
        return None

    def newest(self, session_id: str) -> Snapshot | None:
        """The session's most recently used snapshot, or None."""
        for owner, key in reversed(self._order):
            if owner == session_id:
                return self._sessions[owner][key]
        return None

    def forget(self, session_id: str) -> bool:
        """Drop all snapshots of the session; whether there were any."""
        keys = list(self._sessions.get(session_id, {}))
        for key in keys:
            self._remove(session_id, key)
        return bool(keys)

    def _remove(self, session_id: str, key: bytes) -> None:
        snapshots = self._sessions.get(session_id, {})
        if key not in snapshots:
            return
        self.num_bytes -= snapshots.pop(key).nbytes
        del self._order[session_id, key]
        if not snapshots:
            del self._sessions[session_id]
