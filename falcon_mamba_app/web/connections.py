"""Connections that say nothing: how many may be open, and how long they may take to begin.

The web server itself waits for the head of a request for ever, and counts connections only once
they have sent one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"This server has as many connections as it allows; try again in a few seconds.\n"
)


def limited_protocol(*, max_connections: int, header_timeout_s: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol with a limit on open connections (0: none) and a deadline for each
    request's head.
    """

    class LimitedProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if max_connections and len(self.connections) > max_connections:
                transport.write(FULL)
                transport.close()
                return
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._expect_nothing()
            elif self._deadline is None:  # the next request of a connection kept alive
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(header_timeout_s, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return LimitedProtocol
