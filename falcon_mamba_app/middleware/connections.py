"""Connections that say or read nothing: how many may be open, how long they may take to begin, and
to read on.

The web server itself waits for the head of a request for ever, and for a reader that reads nothing
of its answer; it counts connections only once they have sent a head.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
from collections import Counter
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"This server has as many connections as it allows; try again in a few seconds.\n"
)
# Beside the connections: the model's files, libraries, the log.
SPARE_FILES = 256


class Connections:
    """How many are open: `limit` together, `limit_each` from one address (0: no limit).

    Proxies and this machine bring many visitors, so `shared` networks count only together.
    """

    def __init__(self, limit: int, limit_each: int, shared: Iterable[str]) -> None:
        self._limit = limit
        self._limit_each = limit_each
        self._shared = [ipaddress.ip_network(network) for network in shared]
        self._open: Counter[str] = Counter()

    def open(self, address: str) -> bool:
        """Count one more; whether there is room for it."""
        self._open[address] += 1
        if self._limit and self._open.total() > self._limit:
            return False
        is_over = bool(self._limit_each) and self._open[address] > self._limit_each
        return not is_over or self._is_shared(address)

    def close(self, address: str) -> None:
        """One less."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def _is_shared(self, address: str) -> bool:
        with contextlib.suppress(ValueError):
            parsed = ipaddress.ip_address(address.partition("%")[0])
            return parsed.is_loopback or any(parsed in network for network in self._shared)
        return True  # no address: a socket of this machine


def limited_protocol(
    connections: Connections, *, header_timeout_s: float, reader_timeout_s: float
) -> type[asyncio.Protocol]:
    """uvicorn's protocol with a limit on connections, and deadlines: for each request's head, with
    what is left of an answered body before it, and for a reader to take more of its answer once the
    buffers are full.
    """

    class LimitedProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _address = ""
        _reading: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            if connections.open(self._address):
                self._expect_head()
            else:
                transport.write(FULL)
                transport.close()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            is_answered = self.conn.our_state is h11.DONE  # and the rest of its body still comes
            if self.conn.their_state is not h11.IDLE and not is_answered:
                self._expect_nothing()
            elif self._deadline is None:  # the next request of a connection kept alive
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            connections.close(self._address)
            self._is_read_again()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self.loop.call_later(reader_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._is_read_again()

        def _is_read_again(self) -> None:
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(header_timeout_s, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return LimitedProtocol


def allow_files_for(num_connections: int) -> int:
    """Raise the process's limit of open files as far as the connections need and the system
    allows; returns how many connections there is room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + SPARE_FILES
    if soft < wanted and hard > soft:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, soft - SPARE_FILES)
