"""What is known of the stored states without asking the place: whose, how long, how large, pinned.

It is learned from listings and kept up to date with what this process writes and deletes. Safe to
call from several threads; no call takes long.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable

from falcon_mamba_app.state_store.names import PIN, StateName, parse_path
from falcon_mamba_app.state_store.objects import StoredObject

MAX_LISTED = 20_000  # owners whose last listing is remembered


class Index:
    """Names of states in the order of their last use."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._order: OrderedDict[StateName, int] = OrderedDict()  # bytes; least recent first
        self._owners: dict[str, set[StateName]] = {}
        self._pinned: set[StateName] = set()
        self._listed: OrderedDict[str, float] = OrderedDict()  # when; of owners
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, state: StateName) -> bool:
        return state in self._order

    def learn(self, found: Iterable[StoredObject]) -> None:
        """Take in a listing; states that were not known count as unused since they were written."""
        entries = sorted(found, key=lambda entry: entry.written_s)
        pins = {entry.path for entry in entries if entry.path.endswith(PIN)}
        with self._lock:
            for entry in entries:
                state = parse_path(entry.path)
                if state is None:
                    continue
                if state.pin_path in pins:
                    self._pinned.add(state)
                if state not in self._order:
                    self.add(state, entry.nbytes)

    def add(self, state: StateName, num_bytes: int) -> None:
        """A state that is used now."""
        with self._lock:
            self.num_bytes += num_bytes - self._order.pop(state, 0)
            self._order[state] = num_bytes
            self._owners.setdefault(state.owner, set()).add(state)

    def use(self, state: StateName) -> bool:
        """Mark it as used now; False if it is not known."""
        with self._lock:
            if state in self._order:
                self._order.move_to_end(state)
            return state in self._order

    def drop(self, state: StateName) -> bool:
        """It is there no more. Returns whether its owner has no other."""
        with self._lock:
            self.num_bytes -= self._order.pop(state, 0)
            self._pinned.discard(state)
            states = self._owners.get(state.owner, set())
            states.discard(state)
            if not states:
                self._owners.pop(state.owner, None)
            return not states

    def pin(self, state: StateName) -> None:
        with self._lock:
            self._pinned.add(state)

    def unpin(self, state: StateName) -> None:
        with self._lock:
            self._pinned.discard(state)

    def of(self, owner: str) -> list[StateName]:
        """The owner's states in no order."""
        with self._lock:
            return list(self._owners.get(owner, ()))

    def newest_of(self, owner: str) -> StateName | None:
        """The owner's state that was used last."""
        with self._lock:
            return next((state for state in reversed(self._order) if state.owner == owner), None)

    def thinnable(self, owner: str) -> list[StateName]:
        """The owner's states that are not pinned."""
        with self._lock:
            return [s for s in self._owners.get(owner, ()) if s not in self._pinned]

    def victim(self, num_bytes: int, max_bytes: int) -> StateName | None:
        """The longest unused state, pinned ones left out, that must go so that `num_bytes` more fit
        into `max_bytes`; None if they fit, or if nothing may go.
        """
        with self._lock:
            if self.num_bytes + num_bytes <= max_bytes:
                return None
            return next((state for state in self._order if state not in self._pinned), None)

    def note_listing(self, owner: str, now_s: float) -> None:
        """The owner's states were just listed."""
        with self._lock:
            self._listed[owner] = now_s
            self._listed.move_to_end(owner)
            while len(self._listed) > MAX_LISTED:
                self._listed.popitem(last=False)

    def listed_s(self, owner: str) -> float:
        """When the owner's states were listed last; long ago if never."""
        return self._listed.get(owner, -math.inf)
