"""Connections handed from one process to another; here both ends are in one."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from falcon_mamba_app.cluster.door import API, TAKEN, Door, Inherited, send


class Counting(asyncio.Protocol):
    """Answers with the number of bytes once a newline has come."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        if data.endswith(b"\n"):
            self.transport.write(str(len(self.data)).encode())
            self.transport.close()


@pytest.fixture
async def channel():
    """The parent's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.socket() as listener:
        # The door has descriptors of its own, as another process would.
        inherited = Inherited(os.dup(theirs.fileno()), -1, os.dup(listener.fileno()))
        door = Door(inherited)
        door.open(Counting)
        ours.setblocking(False)
        yield ours
        asyncio.get_running_loop().remove_reader(inherited.channel)
        door.close()


@pytest.mark.parametrize("num_read", [0, 5, 32 * 2**10, 32 * 2**10 + 1, 2**20])
async def test_what_was_read_already_comes_before_what_the_connection_still_brings(
    channel, num_read
):
    loop = asyncio.get_running_loop()
    client, server = socket.socketpair()
    client.setblocking(False)
    send(channel, API, b"x" * num_read, server)
    server.close()
    await loop.sock_sendall(client, b"rest\n")
    assert await loop.sock_recv(client, 100) == str(num_read + 5).encode()
    letters = [await loop.sock_recv(channel, 16) for _ in range(2)]
    assert letters == [TAKEN, API]
    client.close()
