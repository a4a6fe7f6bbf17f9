"""A copy's side: it takes over connections that the parent has accepted, and tells when each ends.

The parent sends a message for each connection: a letter for its kind, what it has read of it, and
the connection itself. What it has read comes in a file of its own if it is long. A letter goes back
at once when a connection is taken: one that a dying copy did not take goes to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from falcon_mamba_app.listener import Listener

API, PAGE = b"a", b"p"
TAKEN = b"t"
MAX_INLINE_BYTES = 32 * 2**10
MAX_LEFT_S = 30.0  # without a parent


@dataclass(frozen=True, slots=True)
class Inherited:
    """The descriptors that a copy gets from its parent, by their numbers."""

    channel: int  # connections come, and letters go
    lifeline: int  # it ends with the parent
    listener: int  # of the copy's own address, which stays when the copy is started again

    def __str__(self) -> str:
        return f"{self.channel},{self.lifeline},{self.listener}"

    @classmethod
    def parse(cls, text: str) -> Inherited:
        channel, lifeline, listener = map(int, text.split(","))
        return cls(channel, lifeline, listener)


class Door:
    """Lets connections in once it is open."""

    def __init__(self, inherited: Inherited) -> None:
        self.listener = Listener(fileno=inherited.listener)
        self._channel = socket.socket(fileno=inherited.channel)
        self._channel.setblocking(False)
        for descriptor in (inherited.channel, inherited.listener):
            os.set_inheritable(descriptor, False)  # to what this process starts
        self._admitting: set[asyncio.Task[None]] = set()
        self._lifeline = inherited.lifeline

    def end_with_parent(self) -> None:
        """From now on this process ends when its parent ends, however it ends."""
        watching = threading.Thread(
            target=_end_with_parent, args=(self._lifeline,), name="lifeline", daemon=True
        )
        watching.start()

    def open(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """From now on serve the connections with this protocol. Call it on the event loop."""
        self._make_protocol = make_protocol
        asyncio.get_running_loop().add_reader(self._channel, self._receive)

    def close(self) -> None:
        self._channel.close()
        self.listener.close()

    def _receive(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, 2 * MAX_INLINE_BYTES, 2)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not descriptors:  # the parent has gone; the lifeline's thread sees to the rest
            asyncio.get_running_loop().remove_reader(self._channel)
            return
        self._tell(TAKEN)
        data = message[1:]
        if len(descriptors) > 1:
            data = _contents(descriptors[1])
        connection = socket.socket(fileno=descriptors[0])
        task = asyncio.create_task(self._admit(message[:1], data, connection))
        self._admitting.add(task)
        task.add_done_callback(self._admitting.discard)

    async def _admit(self, kind: bytes, data: bytes, connection: socket.socket) -> None:
        connection.setblocking(False)

        def make() -> asyncio.Protocol:
            protocol = self._make_protocol()
            end = protocol.connection_lost

            def connection_lost(error: Exception | None) -> None:
                self._tell(kind)
                end(error)

            setattr(protocol, "connection_lost", connection_lost)  # noqa: B010
            return protocol

        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.connect_accepted_socket(make, connection)
        except OSError:
            self._tell(kind)
            connection.close()
            return
        # This comes before anything that the transport reads: its first look at the socket is
        # after the callbacks that were waiting when it was made.
        if data and not transport.is_closing():
            protocol.data_received(data)

    def _tell(self, kind: bytes) -> None:
        with contextlib.suppress(OSError):  # the parent has gone
            self._channel.send(kind)


def send(channel: socket.socket, kind: bytes, data: bytes, connection: socket.socket) -> None:
    """The parent's side of the same message. Raises OSError where the copy takes none."""
    if len(data) <= MAX_INLINE_BYTES:
        socket.send_fds(channel, [kind + data], [connection.fileno()])
        return
    with os.fdopen(os.memfd_create("request"), "wb") as file:
        file.write(data)
        file.flush()
        socket.send_fds(channel, [kind], [connection.fileno(), file.fileno()])


def _contents(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _end_with_parent(lifeline: int) -> None:
    """The other end is the parent's alone, so reading returns when the parent has ended in any way.
    Then this process ends as by SIGTERM, and at last without being asked.
    """
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(MAX_LEFT_S)
    os._exit(1)
