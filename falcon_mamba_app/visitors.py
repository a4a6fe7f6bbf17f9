"""Visitors, and the limits of each one.

A visitor is one unit of the limits: an API key, a person who signed in, or otherwise an address.
Rates are token buckets: the limit is the average per minute, and also the most at once. Everything
is used on the event loop and is bounded in memory. It knows no HTTP; the layers that do name the
visitors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from falcon_mamba_app.errors import TooManyRequests
from falcon_mamba_app.rates import Allowance, Clock, Rates, WrongKeys, network
from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.tally import Tally

SESSION_COUNTS_S = 3_600.0
EXPIRY_INTERVAL_S = 30.0
BUSY_RETRY_S = 5
NO_OWN_LIMITS = Allowance()


@dataclass(slots=True)
class _Session:
    """A session that counts: after a successful use always, before that while it is in use."""

    at_s: float = 0.0  # when it was last used
    is_kept: bool = False
    num_open: int = 0


@dataclass(slots=True)
class _Usage:
    """What one visitor has open now."""

    replies: int = 0
    connections: int = 0
    sessions: dict[str, _Session] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return not (self.replies or self.connections or self.sessions)


class Visitors:
    """The limits of all visitors of one process."""

    def __init__(
        self,
        limits: LimitSettings,
        clock: Clock = time.monotonic,
        *,
        weights: Iterable[tuple[str, float]] = (),
        tally: Tally | None = None,
    ) -> None:
        """`weights` are those of API keys; every other caller's is 1. With a `tally`, rates and
        replies at the same time count over all copies of the server.
        """
        self.limits, self.clock, self.tally = limits, clock, tally
        self.rates = Rates(
            limits.visitor_requests_per_minute,
            limits.visitor_replies_per_minute,
            limits.visitor_tokens_per_minute,
            clock,
            tally,
        )
        self.weights = dict(weights)
        self.wrong_keys = WrongKeys(limits.wrong_keys_per_minute, clock, tally)
        self._usages: dict[str, _Usage] = {}
        self._next_expiry_s = 0.0

    def at(self, address: str, *, is_exempt: bool = False) -> Visitor:
        """The visitor at a network address; an exempt one is limited only in wrong keys."""
        name = network(address)
        return Visitor(self, name, address_name=name, is_exempt=is_exempt)

    def usage(self, name: str) -> _Usage:
        """What the visitor has open, to be changed and then handed to `tidy`."""
        return self._usages.setdefault(name, _Usage())

    def tidy(self, name: str) -> None:
        """Forget visitors who have nothing open."""
        usage = self._usages.get(name)
        if usage is not None and usage.is_over:
            del self._usages[name]

    def sessions(self, name: str) -> dict[str, _Session]:
        """The visitor's sessions that count, by their ids."""
        if self.clock() >= self._next_expiry_s:
            self._next_expiry_s = self.clock() + EXPIRY_INTERVAL_S
            self._expire()
        return self._usages[name].sessions if name in self._usages else {}

    def _expire(self) -> None:
        before_s = self.clock() - SESSION_COUNTS_S
        for name, usage in list(self._usages.items()):
            usage.sessions = {i: s for i, s in usage.sessions.items() if s.at_s > before_s}
            self.tidy(name)


class Visitor:
    """One visitor. The methods refuse with TooManyRequests and a sentence."""

    def __init__(
        self,
        visitors: Visitors,
        name: str,
        *,
        address_name: str,
        is_exempt: bool,
        person: str | None = None,
        allowance: Allowance = NO_OWN_LIMITS,
    ) -> None:
        """`person` is who signed in under a name of their own."""
        self.name, self.person = name, person
        self._visitors, self._allowance = visitors, allowance
        self._address_name = address_name
        self._is_exempt = is_exempt and not allowance.has_limits

    @property
    def owner(self) -> str:
        """The owner of the API's sessions: a person with all of their keys, a key, an address. All
        callers on this machine are one owner.
        """
        if self.person is not None:
            return f"person {self.person}"
        return "" if self._is_exempt and self.name == self._address_name else self.name

    @property
    def weight(self) -> float:
        """The share of the service for the caller's key, relative to a key of weight 1."""
        own = self._allowance.weight
        return own * self._visitors.weights.get(self.name.removeprefix("key "), 1.0)

    def line(self, session_id: str | None) -> str:
        """The name under which replies get their share. Callers on this machine cannot be told
        apart, so there each conversation has its own share.
        """
        return f"{self.name} {session_id or ''}" if self._is_exempt else self.name

    def count_tokens(self, amount: int) -> None:
        """Count tokens; a debt blocks the next reply. Raises WrongKey once the key has ended."""
        self._allowance.check_admitted()
        if not self._is_exempt:
            self._visitors.rates.tokens(self._allowance).charge(self.name, amount)

    @property
    def max_sessions(self) -> int:
        """The most conversations that are kept for the visitor."""
        limit = 0 if self._is_exempt else self._visitors.limits.visitor_max_sessions
        return limit or sys.maxsize

    def with_key(self, api_key: str) -> Visitor:
        """The same caller, now known by a key, wherever it calls from."""
        if not api_key:
            return self
        return Visitor(
            self._visitors,
            f"key {api_key}",
            address_name=self._address_name,
            is_exempt=self._is_exempt,
        )

    def as_person(self, person: str, key: str = "", allowance: Allowance | None = None) -> Visitor:
        """The same caller, now known by name; each of a person's keys has limits of its own."""
        return Visitor(
            self._visitors,
            f"person {person} {key}".rstrip(),
            address_name=self._address_name,
            is_exempt=self._is_exempt,
            person=person,
            allowance=allowance or NO_OWN_LIMITS,
        )

    def check_attempts(self) -> None:
        """Refuse to look at another key or password after too many wrong ones."""
        self._visitors.wrong_keys.check(self._address_name)

    def count_wrong_key(self) -> None:
        """A key or password was wrong."""
        self._visitors.wrong_keys.count(self._address_name)

    def count_right_key(self) -> None:
        """A key or password was right."""
        self._visitors.wrong_keys.trust(self._address_name)

    def count_request(self, amount: int = 1) -> None:
        """Count a request of any kind; a costly one may count as several."""
        if not self._is_exempt:
            self._visitors.rates.requests(self._allowance).take(self.name, amount)

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Hold one open request."""
        limit = self._visitors.limits.visitor_max_connections
        usage = self._visitors.usage(self.name)
        if limit and usage.connections >= limit and not self._is_exempt:
            raise TooManyRequests(
                f"{usage.connections} requests from here are open, the most this server allows;"
                " close some pages or calls",
                retry_after_s=BUSY_RETRY_S,
            )
        usage.connections += 1
        try:
            yield
        finally:
            usage.connections -= 1
            self._visitors.tidy(self.name)

    @contextmanager
    def replies(self, session_id: str | None, count: int = 1) -> Iterator[int]:
        """Hold `count` replies, or as many as fit; yields the number that may be written at the
        same time.
        """
        if self._is_exempt:
            yield count
            return
        self._check_session(session_id)
        usage = self._visitors.usage(self.name)
        try:
            width = self._room(usage, count)
            self._visitors.rates.tokens(self._allowance).check(self.name)
            self._visitors.rates.replies(self._allowance).take(self.name, count)
            if session_id is not None:
                self._count_session(session_id).is_kept = True
            self._write(usage, width)
            try:
                yield width
            finally:
                self._write(usage, -width)
        finally:
            self._visitors.tidy(self.name)

    def count_transfer(self) -> None:
        """Count the import or export of a state like a reply, which moves as much data."""
        if not self._is_exempt:
            self._visitors.rates.replies(self._allowance).take(self.name)

    @contextmanager
    def session(self, session_id: str) -> Iterator[None]:
        """Use the session; a new one counts only if that succeeds. Raises TooManyRequests for one
        more than allowed.
        """
        if self._is_exempt:
            yield
            return
        self._check_session(session_id)
        session = self._count_session(session_id)
        session.num_open += 1
        try:
            yield
            self._count_session(session_id).is_kept = True  # it may have been dropped meanwhile
        finally:
            session.num_open -= 1
            is_current = self._visitors.sessions(self.name).get(session_id) is session
            if is_current and not session.is_kept and not session.num_open:
                self.drop_session(session_id)

    def drop_session(self, session_id: str) -> None:
        """Forget a dropped session."""
        self._visitors.usage(self.name).sessions.pop(session_id, None)
        self._visitors.tidy(self.name)

    def _count_session(self, session_id: str) -> _Session:
        sessions = self._visitors.usage(self.name).sessions
        session = sessions.setdefault(session_id, _Session())
        session.at_s = self._visitors.clock()
        return session

    def _write(self, usage: _Usage, more: int) -> None:
        usage.replies += more
        if self._visitors.tally is not None:
            self._visitors.tally.run(self.name, usage.replies)

    def _room(self, usage: _Usage, count: int) -> int:
        own = self._allowance.max_replies
        limit = self._visitors.limits.visitor_max_replies if own is None else own
        if not limit:
            return count
        tally, running = self._visitors.tally, usage.replies
        running += 0 if tally is None else tally.running_elsewhere(self.name)
        if running >= limit:
            raise TooManyRequests(
                f"{running} replies are being written for you, the most this server allows"
                " at the same time; wait for one to end",
                retry_after_s=BUSY_RETRY_S,
            )
        return min(count, limit - running)

    def _check_session(self, session_id: str | None) -> None:
        limit = self._visitors.limits.visitor_max_sessions
        if not limit or session_id is None:
            return
        sessions = self._visitors.sessions(self.name)
        if session_id not in sessions and len(sessions) >= limit:
            raise TooManyRequests(
                f"you have {limit} conversations here, the most this server allows;"
                " end one of them, or leave one alone for an hour",
                retry_after_s=int(SESSION_COUNTS_S),
            )


def visitor_in(state: object) -> Visitor:
    """The request's visitor, as the layer of limits stored it in the request's state.

    A request without one is a mistake of ours, because it would have no limits.
    """
    visitor = getattr(state, "visitor", None)
    assert isinstance(visitor, Visitor), "a request came past the layer that limits visitors"
    return visitor


def anybody() -> Visitor:
    """A visitor without limits, for uses without the layer of limits."""
    return Visitors(LimitSettings()).at("", is_exempt=True)
