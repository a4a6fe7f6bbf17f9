"""Addresses that a page may use once: a file goes over HTTP, where no page's session is known."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from falcon_mamba_app.errors import NotFound

TICKET_S = 120.0
Meant = TypeVar("Meant")


class Tickets(Generic[Meant]):
    """Each tells what it was given for; beyond `max_number` the oldest are void."""

    def __init__(
        self, *, max_number: int, again: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`again`: what somebody does whose ticket is void, for the error."""
        self._max_number, self._again, self._clock = max_number, again, clock
        self._held: OrderedDict[str, tuple[Meant, float]] = OrderedDict()  # and its end

    def give(self, meant: Meant) -> str:
        ticket = secrets.token_urlsafe(24)
        self._held[ticket] = meant, self._clock() + TICKET_S
        while len(self._held) > self._max_number:
            self._held.popitem(last=False)
        return ticket

    def take(self, ticket: str) -> Meant:
        """What it was given for; it is void afterwards. Raises NotFound."""
        held = self._held.pop(ticket, None)
        if held is None or self._clock() >= held[1]:
            raise NotFound(f"this address is no longer valid; {self._again} once more")
        return held[0]
