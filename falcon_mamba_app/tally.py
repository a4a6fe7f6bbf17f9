"""What visitors spend at this copy of a server, to be told to the others, and what those tell.

Counting is done in memory alone, under hashes of the visitors' names: nobody who reads what copies
tell each other learns a key or an address. It knows neither the copies nor how they are reached.
Everything is used on the event loop.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

MAX_NAMES = 20_000
MAX_SPENT = 100_000  # limits of visitors; the longest unchanged are forgotten
IDLE_ROUNDS = 180  # of exchanges, after which what was spent has been forgiven everywhere
RUNNING = "replies now"

Charge = Callable[[str, int], None]


class Entry(NamedTuple):
    """What a visitor has spent of one limit since this copy knows them, or has running now."""

    limit: str
    visitor: str  # a hash
    amount: int


class Tally:
    """The tally of one copy."""

    def __init__(self, secret: str) -> None:
        """Copies with the same secret name a visitor alike."""
        key = hashlib.sha256(secret.encode()).digest()

        @lru_cache(maxsize=MAX_NAMES)
        def hashed(visitor: str) -> str:
            name = visitor.encode("utf-8", "surrogatepass")
            return hmac.new(key, name, hashlib.sha256).hexdigest()[:32]

        self.name_of: Callable[[str], str] = hashed
        self._charges: dict[str, Charge] = {}
        # Amounts from elsewhere for limits that nobody has met here yet, by limit and visitor.
        self._waiting: OrderedDict[tuple[str, str], int] = OrderedDict()
        # By limit and visitor: the amount so far, and the round of its last change; oldest first.
        self._spent: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._untold: set[tuple[str, str]] = set()
        self._old: list[Entry] = []
        self._running: dict[str, int] = {}
        self._ran: dict[str, int] = {}  # the same at the last exchange
        self._elsewhere: dict[str, dict[str, int]] = {}  # by visitor and copy
        self._round = 0

    def join(self, limit: str, charge: Charge) -> None:
        """From now on `charge(visitor's hash, amount)` hears what was spent of it elsewhere."""
        self._charges[limit] = charge
        for key in [key for key in self._waiting if key[0] == limit]:
            charge(key[1], self._waiting.pop(key))

    def spend(self, limit: str, visitor: str, amount: int) -> None:
        """Count what the visitor, by the hash, has spent here."""
        key = limit, visitor
        so_far, _ = self._spent.pop(key, (0, 0))
        self._spent[key] = so_far + amount, self._round
        self._untold.add(key)
        if len(self._spent) > MAX_SPENT:
            self._drop_oldest()

    def run(self, visitor: str, number: int) -> None:
        """From now on this many replies are being written for the visitor of that name."""
        self._running[self.name_of(visitor)] = number

    def running_elsewhere(self, visitor: str) -> int:
        """How many replies other copies write for the visitor, by name."""
        if not self._elsewhere:
            return 0
        return sum(self._elsewhere.get(self.name_of(visitor), {}).values())

    def news(self) -> tuple[list[Entry], list[Entry]]:
        """What has changed since the last time, and what is so old that nobody needs it."""
        self._round += 1
        while self._spent and self._round - next(iter(self._spent.values()))[1] > IDLE_ROUNDS:
            self._drop_oldest()
        old, self._old = self._old, []
        news = [Entry(*key, self._spent[key][0]) for key in self._untold if key in self._spent]
        # Only those that have lasted from one exchange to the next: what ends within a moment must
        # not stand in the way elsewhere when it is over.
        news += [
            Entry(RUNNING, name, min(number, self._ran.get(name, 0)))
            for name, number in self._running.items()
        ]
        self._running = {name: number for name, number in self._running.items() if number}
        self._ran = dict(self._running)
        self._untold.clear()
        return news, old

    def tell_again(self, news: Iterable[Entry]) -> None:
        """What could not be told."""
        for entry in news:
            if entry.limit == RUNNING:
                self._running.setdefault(entry.visitor, entry.amount)
            else:
                self._untold.add((entry.limit, entry.visitor))

    def hear(self, limit: str, visitor: str, amount: int) -> None:
        """So much more was spent elsewhere."""
        charge = self._charges.get(limit)
        if charge is not None:
            charge(visitor, amount)
            return
        self._waiting[limit, visitor] = self._waiting.pop((limit, visitor), 0) + amount
        if len(self._waiting) > MAX_NAMES:
            self._waiting.popitem(last=False)

    def hear_running(self, copy: str, visitor: str, number: int) -> None:
        """The number of replies being written at that copy now."""
        here = self._elsewhere.setdefault(visitor, {})
        if number:
            here[copy] = number
        else:
            here.pop(copy, None)
        if not here:
            del self._elsewhere[visitor]

    def _drop_oldest(self) -> None:
        key, (amount, _) = self._spent.popitem(last=False)
        self._old.append(Entry(*key, amount))

    def forget_copy(self, copy: str) -> None:
        """It has ended, and with it all replies that it wrote."""
        for visitor in [name for name, by_copy in self._elsewhere.items() if copy in by_copy]:
            self.hear_running(copy, visitor, 0)
