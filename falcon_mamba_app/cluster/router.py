"""Accepts connections, reads as much of each as tells where it belongs, and gives it to a copy.

Whatever is odd about a request, it is handed over as it is: the copies have the limits, and the
words to refuse with. Only while no copy runs does this answer, with 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence

from falcon_mamba_app.cluster.copy_process import CopyProcess
from falcon_mamba_app.cluster.door import API, PAGE
from falcon_mamba_app.cluster.routing import MAX_HEAD_BYTES, Asked, Head, Routing

logger = logging.getLogger(__name__)

MAX_READ_S = 15.0  # then a copy waits for the rest, with its own limits
MAX_READING = 1_000  # connections that are being read; the others are handed over unread
READ_BYTES = 64 * 2**10
NOBODY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n\r\n"
    b'{"error": {"message": "no copy of the server runs at the moment; try again in a few seconds",'
    b' "type": "server_error", "param": null, "code": "not_ready"}}\n'
)


class Router:
    """The router over the copies of one machine."""

    def __init__(self, copies: Sequence[CopyProcess]) -> None:
        self._copies = {copy.name: copy for copy in copies}
        self._routing = Routing()
        self._leading: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket) -> None:
        """Accept connections until it is cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # too many open files, say
                logger.warning("a connection was not accepted (%s)", error.strerror)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._lead(connection, str(address[0])))
            self._leading.add(task)
            task.add_done_callback(self._leading.discard)

    async def _lead(self, connection: socket.socket, address: str) -> None:
        data, asked = b"", Asked(address.encode())
        with contextlib.closing(connection):
            connection.setblocking(False)
            if len(self._leading) <= MAX_READING:
                data = await _beginning(connection)
                if not data:  # opened ahead of a request, say: the next one knows its copy
                    return
            if head := Head.of(data):
                asked = Asked.by(head, data[head.num_bytes :], address)
            if not await self._hand(asked, data, connection):
                with contextlib.suppress(OSError):
                    connection.send(NOBODY)

    async def _hand(self, asked: Asked, data: bytes, connection: socket.socket) -> bool:
        """Give it to the best copy that takes it: a ready one, else one that is starting."""
        kind = API if asked.is_api else PAGE
        for states in (("ready",), ("starting",), ("silent", "draining")):
            left = [copy for copy in self._copies.values() if copy.state in states]
            while left:
                name = self._routing.choose(asked, [copy.load for copy in left])
                if await self._copies[name or ""].hand(kind, data, connection):
                    return True
                left = [copy for copy in left if copy.name != name]
        return False


async def _beginning(connection: socket.socket) -> bytes:
    """The bytes that tell where a request belongs; fewer if it ends before, is odd, or is slow."""
    loop, data, wanted = asyncio.get_running_loop(), bytearray(), MAX_HEAD_BYTES
    head: Head | None = None
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(MAX_READ_S):
            while len(data) < wanted:
                more = await loop.sock_recv(connection, READ_BYTES)
                if not more:
                    break
                data += more
                if head is None and (head := Head.of(bytes(data))) is not None:
                    wanted = head.num_needed
    return bytes(data)
