"""The stored states of all sessions, found by the tokens they have read, within a budget in bytes.

A session's newest states stay, the older ones fewer with age; the least recently used of all go
first, pinned ones never. Beside a session's states lie the ids of its replies, because a text may
be tokenised to other ids than the model wrote.

Trouble with the place is told once, in a warning, and means that nothing is stored or found.
Everything here may block; it is safe to call from several threads.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from falcon_mamba_app.errors import StoreUnavailable
from falcon_mamba_app.state_store.index import Index
from falcon_mamba_app.state_store.names import (
    CALLER_END,
    ID_BYTES,
    ROOT,
    StateName,
    folder_of,
    owner_of,
    owners_of,
    prefix_digests,
)
from falcon_mamba_app.state_store.objects import StateStore
from falcon_mamba_app.state_store.sealing import Damaged, Seal
from falcon_mamba_app.thinning import RestorePoint, least_worth

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_PER_SESSION = 8
MAX_SET_ASIDE = 4  # damaged files that are kept for somebody to look at
PAUSE_S = 30.0  # after trouble, before the place is asked again
# Another process may serve a conversation meanwhile; this one looks again when it comes back.
RELIST_S = 60.0
REPLIES = "replies"
ASIDE = "damaged"


class StateFiles:
    """States of one model in a store; `model` names the weights and the precision."""

    def __init__(
        self,
        store: StateStore,
        seal: Seal,
        *,
        model: str,
        max_bytes: int,
        max_per_session: int = MAX_PER_SESSION,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._seal, self._model = store, seal, model
        self._max_bytes, self._max_per_session = max_bytes, max_per_session
        self._clock = clock
        self._index = Index()
        self._num_aside = 0
        self._paused_until_s = 0.0

    @property
    def place(self) -> str:
        return self._store.place

    @property
    def num_bytes(self) -> int:
        return self._index.num_bytes

    def __len__(self) -> int:
        return len(self._index)

    def read_index(self) -> None:
        """Learn from a listing what is there, the longest unused first."""
        self._index.learn(self._tried(lambda: self._store.list(ROOT)) or [])
        self._num_aside = len(self._tried(lambda: self._store.list(ASIDE)) or [])

    def may_have(self, session_id: str, *, beyond: int = 0) -> bool:
        """Whether a state of the session with more than `beyond` tokens may lie there; at once."""
        owner = owner_of(session_id)
        known = self._index.of(owner)
        return self._is_unsure(owner) or any(state.num_tokens > beyond for state in known)

    def longest_prefix(self, session_id: str, packed_ids: bytes) -> StateName | None:
        """The session's stored state that has read the most of these ids, but not all of them."""
        owner = owner_of(session_id)
        if self._is_unsure(owner):
            self._list(owner)
        states = self._index.of(owner)
        lengths = {state.num_tokens for state in states}
        digests = prefix_digests(self._model, packed_ids, lengths)
        longest = len(packed_ids) // ID_BYTES - 1
        prefixes = [
            state
            for state in states
            if state.num_tokens <= longest and digests.get(state.num_tokens) == state.digest
        ]
        return max(prefixes, key=lambda state: state.num_tokens, default=None)

    def read(self, state: StateName) -> bytes | None:
        """The state's bytes; None where they are gone or damaged."""
        data = self._opened(state.owner, state.path)
        if data is not None:
            self._index.use(state)
        elif not self.is_paused:
            self._index.drop(state)
        return data

    def set_aside(self, state: StateName) -> None:
        """Its contents are not what its name says."""
        self._set_aside(state.path)
        self._index.drop(state)

    def write(
        self,
        session_id: str,
        packed_ids: bytes,
        make_data: Callable[[], bytes],
        *,
        is_pinned: bool = False,
    ) -> bool:
        """Store a state under the ids that it has read. Returns whether it is stored now."""
        owner, num_tokens = owner_of(session_id), len(packed_ids) // ID_BYTES
        digest = prefix_digests(self._model, packed_ids, [num_tokens])[num_tokens]
        state = StateName(owner, num_tokens, digest)
        is_stored = self._index.use(state) or self._put_state(state, make_data())
        if is_stored and is_pinned:
            self.pin(state)
        if is_stored:
            self._thin(owner, packed_ids, state)
        return is_stored

    def pause(self) -> None:
        """Ask the place nothing for a while: it does not answer in time."""
        self._paused_until_s = self._clock() + PAUSE_S

    @property
    def is_paused(self) -> bool:
        return self._clock() < self._paused_until_s

    def newest(self, session_id: str) -> StateName | None:
        """The session's state that was written or read last."""
        owner = owner_of(session_id)
        if self._is_unsure(owner):
            self._list(owner)
        return self._index.newest_of(owner)

    def pin(self, state: StateName) -> None:
        """Keep the state until it is unpinned or forgotten."""
        self._index.pin(state)
        self._tried(lambda: self._store.put(state.pin_path, b""))

    def unpin(self, state: StateName) -> None:
        """Let the state go with its age again."""
        self._tried(lambda: self._store.delete(state.pin_path))
        self._index.unpin(state)

    def read_replies(self, session_id: str) -> bytes | None:
        """What `write_replies` stored, or None."""
        owner = owner_of(session_id)
        return self._opened(owner, f"{folder_of(owner)}/{REPLIES}")

    def write_replies(self, session_id: str, data: bytes) -> None:
        """Replace the session's replies."""
        owner = owner_of(session_id)
        path = f"{folder_of(owner)}/{REPLIES}"
        self._tried(lambda: self._store.put(path, self._seal.close(owner, path, data)))

    def forget(self, session_id: str) -> bool:
        """Delete everything of the session, or of all sessions of the caller that the name ends
        with. Returns whether there was something. Raises StoreUnavailable: what was to be deleted
        may be there still.
        """
        if not session_id.endswith(CALLER_END):
            return self._forget(owner_of(session_id))
        folders = {entry.path.split("/")[1] for entry in self._store.list(ROOT)}
        return any([self._forget(owner) for owner in owners_of(session_id, folders)])

    def _forget(self, owner: str) -> bool:
        for state in self._index.of(owner):
            self._index.drop(state)
        entries = self._store.list(folder_of(owner))
        for entry in entries:
            self._store.delete(entry.path)
        return bool(entries)

    def _put_state(self, state: StateName, data: bytes) -> bool:
        sealed = self._seal.close(state.owner, state.path, data)
        if len(sealed) > self._max_bytes or not self._make_room(len(sealed)):
            return False

        def put() -> bool:
            self._store.put(state.path, sealed)
            return True

        if not self._tried(put):
            return False
        self._index.add(state, len(sealed))
        return True

    def _make_room(self, num_bytes: int) -> bool:
        """Delete the longest unused states; False if pinned ones take all of the budget."""
        while (victim := self._index.victim(num_bytes, self._max_bytes)) is not None:
            self._delete(victim)
        return self.num_bytes + num_bytes <= self._max_bytes

    def _thin(self, owner: str, packed_ids: bytes, newest: StateName) -> None:
        while True:
            states = self._index.thinnable(owner)
            if len(states) <= self._max_per_session:
                return
            lengths = {state.num_tokens for state in states}
            digests = prefix_digests(self._model, packed_ids, lengths)
            on_the_way = [s.num_tokens for s in states if digests.get(s.num_tokens) == s.digest]
            others = [state for state in states if state != newest]
            points = [
                RestorePoint(
                    num_tokens=state.num_tokens,
                    # Where another way parts is not known: it counts as far away.
                    num_shared=state.num_tokens if state.num_tokens in on_the_way else 0,
                    num_before=max((n for n in on_the_way if n < state.num_tokens), default=0),
                )
                for state in (*others, newest)
            ]
            self._delete([*others, newest][least_worth(points)])

    def _delete(self, state: StateName) -> None:
        is_last = self._index.drop(state)
        self._tried(lambda: self._store.delete(state.path))
        if is_last:  # ids without a state help nobody
            self._tried(lambda: self._store.delete(f"{folder_of(state.owner)}/{REPLIES}"))

    def _is_unsure(self, owner: str) -> bool:
        """Whether another process may have stored states for the owner since the last listing."""
        if self.is_paused:
            return False
        return self._clock() - self._index.listed_s(owner) > RELIST_S

    def _opened(self, owner: str, path: str) -> bytes | None:
        try:
            sealed = self._tried(lambda: self._store.get(path))
            return None if sealed is None else self._seal.open(owner, path, sealed)
        except FileNotFoundError:
            return None
        except Damaged:
            self._set_aside(path)
            return None

    def _set_aside(self, path: str) -> None:
        """Out of the way, for somebody to look at; only a few of them are kept."""
        logger.warning(
            "a stored state is damaged, or was not written here; it is set aside as %s/… in %s and"
            " its conversation is read again",
            ASIDE,
            self.place,
        )

        def move() -> None:
            if self._num_aside < MAX_SET_ASIDE:
                self._num_aside += 1
                self._store.put(f"{ASIDE}/{path.replace('/', '-')}", self._store.get(path))
            self._store.delete(path)

        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self._tried(move)

    def _list(self, owner: str) -> None:
        """Learn what other processes have stored for this owner."""
        found = self._tried(lambda: self._store.list(folder_of(owner)))
        if found is None:
            return
        self._index.learn(found)
        self._index.note_listing(owner, self._clock())

    def _tried(self, work: Callable[[], Result]) -> Result | None:
        """The result; None while the place is in trouble, which is told once."""
        if self.is_paused:
            return None
        try:
            result = work()
        except StoreUnavailable as failure:
            if not self._paused_until_s:
                logger.warning("%s (%s). Conversations go on in memory", failure, self.place)
            self._paused_until_s = self._clock() + PAUSE_S
            return None
        if self._paused_until_s:
            logger.info("states are kept in %s again", self.place)
        self._paused_until_s = 0.0
        return result
