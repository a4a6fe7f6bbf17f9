"""The network between a browser and a server, for tests to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """Carries bytes both ways, until it is told otherwise."""

    def __init__(self, url: str) -> None:
        self._server_port = urlsplit(url).port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.is_refusing = False
        self.url = ""

    def cut(self) -> None:
        """Break all connections, and refuse new ones until `mend`."""
        self.is_refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def connect_to(self, url: str) -> None:
        """Lead to another server from now on."""
        self._server_port = urlsplit(url).port
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_refusing = False

    def swallow(self) -> None:
        """From now on the open connections carry nothing, and nobody is told."""
        self._flows, old = asyncio.Event(), self._flows
        self._flows.set()
        old.clear()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the browser."""
        if self.is_refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        flows = self._flows
        ends = {writer, back}
        self._writers |= ends
        pumps = [
            asyncio.create_task(_pump(source, sink, flows))
            for source, sink in ((reader, back), (there, writer))
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self._writers -= ends
        for end in ends:
            end.close()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event
) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            await flows.wait()
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A wire to the server at `url`; its own `url` is for the browser."""
    wire = Wire(url)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.cut()
        server.close()
