"""States of idle sessions, found by the tokens they have read.

A state cannot be rewound. So continue, retry, undo, edit and branch are one operation: find the
session's snapshot that has read the longest prefix of the new prompt. The store is only an
optimisation; answers are the same with an empty one. It knows no text and no device.

A session holds a bounded number of snapshots, as `thinning` chooses them.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass, field

from falcon_mamba_app.engine.packing import ID_BYTES, pack_token_ids
from falcon_mamba_app.engine.states.pool import State
from falcon_mamba_app.thinning import RestorePoint, least_worth

# Snapshots per session; comparing more would take longer than reading most prompts.
MAX_COMPARED = 64
# The last turn's three, and one for going further back.
MAX_PER_SESSION = 4
BLOCK_BYTES = 1024 * ID_BYTES

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


@dataclass(slots=True)
class _Session:
    snapshots: dict[bytes, Snapshot] = field(default_factory=dict)  # by their packed ids
    forks: set[bytes] = field(default_factory=set)  # those that were continued in several ways

    def nearest_before(self, key: bytes) -> bytes:
        """The longest other snapshot's ids that `key` begins with; none: b""."""
        begun = (k for k in self.snapshots if len(k) < len(key) and key.startswith(k))
        return max(begun, key=len, default=b"")

    def mark_fork_before(self, key: bytes) -> None:
        """Remember where the conversation parts, if it does so on the way to `key`."""
        before = self.nearest_before(key)
        if before and any(
            other.startswith(before) and not (key.startswith(other) or other.startswith(key))
            for other in self.snapshots
        ):
            self.forks.add(before)

    def least_worth(self, newest: bytes) -> bytes:
        """The snapshot to drop for `newest`."""
        keys = [*(key for key in self.snapshots if key != newest), newest]
        points = [
            RestorePoint(
                num_tokens=len(key) // ID_BYTES,
                num_shared=_num_in_common(key, newest),
                num_before=len(self.nearest_before(key)) // ID_BYTES,
                is_fork=key in self.forks,
            )
            for key in keys
        ]
        return keys[least_worth(points)]


class SnapshotStore:
    """Snapshots of all sessions within one budget in bytes; the least recently used go first.

    Of one session at most `max_per_session` are kept. Spare snapshots, which no session asked for,
    may take half of the budget, and any number under one name.

    Safe to call from several threads: a state that was stored elsewhere may be put here while the
    engine works.
    """

    def __init__(self, *, max_bytes: int, max_per_session: int = MAX_PER_SESSION) -> None:
        self._lock = threading.RLock()
        # Called for what goes for want of room, if somebody else would keep it; it must not block.
        self.on_evict: Callable[[str, Snapshot], None] | None = None
        self.max_bytes, self.max_spare_bytes = max_bytes, max_bytes // 2
        self._max_per_session = max_per_session
        self.num_bytes = self.num_spare_bytes = 0
        self._spare: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # as `_order`
        self._sessions: dict[str, _Session] = {}
        self._order: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # least recent first

    def __len__(self) -> int:
        return len(self._order)

    def touch(self, session_id: str, token_ids: TokenIds) -> bool:
        """Mark the snapshot of exactly these tokens as used now; False when there is none."""
        with self._lock:
            key = session_id, pack_token_ids(token_ids)
            if key in self._order:
                self._use(key)
            return key in self._order

    def put(
        self, session_id: str, token_ids: TokenIds, state: State, *, is_spare: bool = False
    ) -> None:
        """Keep the state under its tokens, evicting others as needed; drop one too large."""
        with self._lock:
            snapshot = Snapshot(pack_token_ids(token_ids), state)
            if snapshot.nbytes > (self.max_spare_bytes if is_spare else self.max_bytes):
                return
            key = session_id, snapshot.packed_token_ids
            self._remove(*key)
            while is_spare and self.num_spare_bytes + snapshot.nbytes > self.max_spare_bytes:
                self._remove(*next(iter(self._spare)))
            while self.num_bytes + snapshot.nbytes > self.max_bytes:
                self._evict(*next(iter(self._order)))
            session = self._sessions.setdefault(session_id, _Session())
            session.snapshots[snapshot.packed_token_ids] = snapshot
            self._order[key] = None
            self.num_bytes += snapshot.nbytes
            if is_spare:
                self._spare[key] = None
                self.num_spare_bytes += snapshot.nbytes
                return
            session.mark_fork_before(snapshot.packed_token_ids)
            while len(session.snapshots) > self._max_per_session:
                self._remove(session_id, session.least_worth(snapshot.packed_token_ids))

    def longest_prefix(self, session_id: str, token_ids: TokenIds) -> Snapshot | None:
        """The session's snapshot that has consumed the most of `token_ids`, or None.

        It never has consumed all: one token is left to feed, since a state alone gives no logits.
        """
        with self._lock:
            found = self.peek(session_id, token_ids)
            if found is not None:
                self._use((session_id, found.packed_token_ids))
            return found

    def peek(self, session_id: str, token_ids: TokenIds) -> Snapshot | None:
        """As `longest_prefix`, but nothing counts as used."""
        packed = pack_token_ids(token_ids)
        with self._lock:
            snapshots = self._of(session_id)
            # Longest first, so that usually one long comparison is enough.
            for key in sorted(snapshots, key=len, reverse=True):
                if len(key) < len(packed) and packed.startswith(key):
                    return snapshots[key]
            return None

    def num_known(self, session_id: str, token_ids: TokenIds) -> int:
        """The tokens that `longest_prefix` would spare; nothing counts as used."""
        found = self.peek(session_id, token_ids)
        return 0 if found is None else found.num_tokens

    def most_in_common(self, session_id: str, token_ids: TokenIds) -> int:
        """The largest number of leading tokens that `token_ids` shares with one of the session's
        newest snapshots.
        """
        packed = pack_token_ids(token_ids)
        with self._lock:
            newest = list(self._of(session_id))[-MAX_COMPARED:]
        return max((_num_in_common(packed, key) for key in newest), default=0)

    def newest(self, session_id: str) -> Snapshot | None:
        """The session's most recently used snapshot, or None."""
        with self._lock:
            for owner, key in reversed(self._order):
                if owner == session_id:
                    return self._sessions[owner].snapshots[key]
            return None

    def forget(self, session_id: str) -> bool:
        """Drop all snapshots of the session. Returns whether it had any."""
        with self._lock:
            keys = list(self._of(session_id))
            for key in keys:
                self._remove(session_id, key)
            return bool(keys)

    def _of(self, session_id: str) -> dict[bytes, Snapshot]:
        session = self._sessions.get(session_id)
        return {} if session is None else session.snapshots

    def _evict(self, session_id: str, key: bytes) -> None:
        snapshot, is_spare = self._of(session_id).get(key), (session_id, key) in self._spare
        self._remove(session_id, key)
        if self.on_evict is not None and snapshot is not None and not is_spare:
            self.on_evict(session_id, snapshot)

    def _remove(self, session_id: str, key: bytes) -> None:
        session = self._sessions.get(session_id)
        if session is None or key not in session.snapshots:
            return
        num_bytes = session.snapshots.pop(key).nbytes
        session.forks.discard(key)
        self.num_bytes -= num_bytes
        del self._order[session_id, key]
        if (session_id, key) in self._spare:
            del self._spare[session_id, key]
            self.num_spare_bytes -= num_bytes
        if not session.snapshots:
            del self._sessions[session_id]

    def _use(self, key: tuple[str, bytes]) -> None:
        self._order.move_to_end(key)
        if key in self._spare:
            self._spare.move_to_end(key)


def _num_in_common(one: bytes, other: bytes) -> int:
    """The number of leading tokens that both share."""
    end = min(len(one), len(other))
    start = 0
    while start < end and one[start : start + BLOCK_BYTES] == other[start : start + BLOCK_BYTES]:
        start += BLOCK_BYTES
    for place in range(start, min(start + BLOCK_BYTES, end), ID_BYTES):
        if one[place : place + ID_BYTES] != other[place : place + ID_BYTES]:
            return place // ID_BYTES
    return end // ID_BYTES
