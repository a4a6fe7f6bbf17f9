"""Addresses that a page may use once: a file goes over HTTP, where no page's session is known."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from falcon_mamba_app.errors import NotFound

TICKET_S = 120.0


class Tickets:
    """Each names the page that it was given to; beyond `max_number` the oldest are void."""

    def __init__(
        self, *, max_number: int, again: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`again`: what somebody does whose ticket is void, for the error."""
        self._max_number, self._again, self._clock = max_number, again, clock
        self._held: OrderedDict[str, tuple[str, float]] = OrderedDict()  # page, end

    def give(self, page: str) -> str:
        ticket = secrets.token_urlsafe(24)
        self._held[ticket] = page, self._clock() + TICKET_S
        while len(self._held) > self._max_number:
            self._held.popitem(last=False)
        return ticket

    def take(self, ticket: str) -> str:
        """Whose ticket it is; it is void afterwards. Raises NotFound."""
        page, end_s = self._held.pop(ticket, ("", 0.0))
        if self._clock() >= end_s:
            raise NotFound(f"this address is no longer valid; {self._again} once more")
        return page
