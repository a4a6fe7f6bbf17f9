"""Visitors who ask and do not read, a hundred at a time."""

from __future__ import annotations

import socket

import httpx

from tests.support.api_fixtures import USER
from tests.support.web_fixtures import serving

NUM_READERS = 100
ASKED = b"GET /config HTTP/1.1\r\nHost: x\r\n\r\n" * 8  # 100 kB and more each


def slow_reader(port: int) -> socket.socket:
    """A connection with small buffers, whose answers nobody takes."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(ASKED)
    return reader


async def test_a_hundred_readers_that_do_not_read_stop_nobody():
    """When each is cut off is tests/app/test_faults.py's."""
    async with (
        serving() as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        readers = [slow_reader(port) for _ in range(NUM_READERS)]
        body = {"messages": [USER], "max_tokens": 2}
        for _ in range(3):
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        for reader in readers:
            reader.close()
        assert (await http.get("/health")).status_code == 200
