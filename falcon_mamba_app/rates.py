"""Limits per minute: token buckets by name, and the common limits of wrong keys.

Everything is bounded in memory, own limits by the number of keys that have them, and is used on the
event loop. It knows addresses, but no visitors.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from falcon_mamba_app.errors import TooManyRequests
from falcon_mamba_app.tally import Tally

# The most visitors remembered; the longest silent one is forgotten first.
MAX_REMEMBERED = 20_000
# Wrong keys are also counted per IPv6 network of a provider's customer, with these multiples of one
# address's limit, and for all addresses together.
WIDER_NETWORKS = ((56, 4), (48, 16))
EVERYBODY, EVERYBODYS_SHARE = "everybody", 100

Clock = Callable[[], float]


class Rate:
    """`per_minute` for each name, and the same number at once; 0 is no limit."""

    def __init__(
        self,
        per_minute: int,
        what: str,
        clock: Clock = time.monotonic,
        *,
        where: str = "from here",
        tally: Tally | None = None,
    ) -> None:
        """`what` names the requests in the refusal: "replies were asked for". With a `tally` what
        other copies of the server have counted of the same limit counts here too.
        """
        self._per_minute = per_minute
        self._what = f"{what} {where}"
        self._clock, self._tally = clock, tally
        self._limit = f"{self._what}, {per_minute}"
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at_s
        if tally is not None and per_minute:
            tally.join(self._limit, self._charge_hashed)

    def check(self, name: str, amount: int = 1) -> float:
        """The tokens left, at least `amount`. Raises TooManyRequests if there are fewer."""
        tokens = self._tokens(name)
        if tokens < amount:
            wait_s = math.ceil((amount - tokens) * 60 / self._per_minute)
            raise TooManyRequests(
                f"more than {self._per_minute} {self._what} within a minute;"
                f" try again in {wait_s} s",
                retry_after_s=wait_s,
            )
        return tokens

    def charge(self, name: str, amount: int) -> None:
        """Count finished work; an excess over the bucket is a debt."""
        if self._per_minute and amount:
            self._spend(name, self._tokens(name), amount)

    def take(self, name: str, amount: int = 1) -> None:
        """Count `amount`, or the whole bucket if that is less. Raises TooManyRequests."""
        if not self._per_minute:
            return
        amount = min(amount, self._per_minute)
        self._spend(name, self.check(name, amount), amount)

    def _spend(self, name: str, tokens: float, amount: int) -> None:
        key = self._key(name)
        self._set(key, tokens - amount)
        if self._tally is not None:
            self._tally.spend(self._limit, key, amount)

    def _charge_hashed(self, key: str, amount: int) -> None:
        """Spent at another copy."""
        self._set(key, self._tokens_of(key) - amount)

    def _set(self, key: str, tokens: float) -> None:
        self._buckets[key] = (tokens, self._clock())
        self._buckets.move_to_end(key)
        while len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)

    def _key(self, name: str) -> str:
        return name if self._tally is None else self._tally.name_of(name)

    def _tokens(self, name: str) -> float:
        return self._tokens_of(self._key(name)) if self._per_minute else math.inf

    def _tokens_of(self, key: str) -> float:
        tokens, at_s = self._buckets.get(key, (float(self._per_minute), 0.0))
        return min(self._per_minute, tokens + (self._clock() - at_s) * self._per_minute / 60)


def _always() -> None:
    """No key, or one without an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one key may take; None is what every visitor may. `check_admitted` raises once the key
    has ended: what is being written for it must not outlast it.
    """

    weight: float = 1.0
    requests_per_minute: int | None = None
    replies_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_replies: int | None = None
    check_admitted: Callable[[], None] = field(default=_always, compare=False)

    @property
    def has_limits(self) -> bool:
        limits = (self.requests_per_minute, self.replies_per_minute, self.tokens_per_minute)
        return any(limit is not None for limit in (*limits, self.max_replies))


class Rates:
    """The rates of requests, replies and tokens: the common ones, and those of own limits."""

    def __init__(
        self, requests: int, replies: int, tokens: int, clock: Clock, tally: Tally | None = None
    ) -> None:
        self._common = {"requests": requests, "replies": replies, "tokens": tokens}
        self._clock, self._tally = clock, tally
        self._rates: dict[tuple[str, int], Rate] = {}

    def requests(self, allowance: Allowance) -> Rate:
        return self._rate("requests", allowance.requests_per_minute, "requests came")

    def replies(self, allowance: Allowance) -> Rate:
        return self._rate("replies", allowance.replies_per_minute, "replies were asked for")

    def tokens(self, allowance: Allowance) -> Rate:
        return self._rate("tokens", allowance.tokens_per_minute, "tokens were read and written")

    def _rate(self, kind: str, own: int | None, what: str) -> Rate:
        per_minute = self._common[kind] if own is None else own
        if (kind, per_minute) not in self._rates:
            self._rates[kind, per_minute] = Rate(per_minute, what, self._clock, tally=self._tally)
        return self._rates[kind, per_minute]


class WrongKeys:
    """Limits wrong keys per address, per network around it, and in all.

    Too many in all block only addresses that have never given a right key.
    """

    def __init__(
        self, per_minute: int, clock: Clock = time.monotonic, tally: Tally | None = None
    ) -> None:
        def rate(times: int, where: str = "from here") -> Rate:
            what = "wrong keys or passwords came"
            return Rate(times * per_minute, what, clock, where=where, tally=tally)

        self._each = rate(1)
        self._wider = [rate(times, "from your network") for _, times in WIDER_NETWORKS]
        self._all = rate(EVERYBODYS_SHARE, "from all sides")
        self._trusted: OrderedDict[str, None] = OrderedDict()

    def check(self, name: str) -> None:
        """Raises TooManyRequests if no further key of that address may be checked."""
        self._each.check(name)
        for rate, wider in zip(self._wider, _wider_networks(name), strict=False):
            rate.check(wider)
        if name not in self._trusted:
            self._all.check(EVERYBODY)

    def count(self, name: str) -> None:
        """Count a wrong key. Raises TooManyRequests for one too many."""
        if name not in self._trusted:
            self._all.take(EVERYBODY)
        for rate, wider in zip(self._wider, _wider_networks(name), strict=False):
            rate.take(wider)
        self._each.take(name)

    def trust(self, name: str) -> None:
        """Remember that the address has given a right key."""
        self._trusted[name] = None
        self._trusted.move_to_end(name)
        if len(self._trusted) > MAX_REMEMBERED:
            self._trusted.popitem(last=False)


@lru_cache(maxsize=4_096)
def _wider_networks(name: str) -> tuple[str, ...]:
    """The networks of WIDER_NETWORKS around a visitor's; none around an address of IPv4."""
    try:
        household = ipaddress.IPv6Network(name)
    except ValueError:
        return ()
    return tuple(str(household.supernet(new_prefix=length)) for length, _ in WIDER_NETWORKS)


def network(address: str) -> str:
    """What counts as one visitor: an IPv4 address, or the /64 that a household has of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
