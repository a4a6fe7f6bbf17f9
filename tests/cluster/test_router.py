"""What the parent reads of a connection before it hands it over."""

from __future__ import annotations

import asyncio
import socket

import pytest

from falcon_mamba_app.cluster import router
from falcon_mamba_app.cluster.router import Router
from falcon_mamba_app.cluster.routing import Load


class Taking:
    """A copy that takes every connection, or none, and remembers what it got."""

    def __init__(self, name: str, state: str = "ready", takes: bool = True) -> None:
        self.name, self.state, self.takes = name, state, takes
        self.load, self.got = Load(name), []

    async def hand(self, kind, data, connection):
        self.got.append(data)
        if self.takes:
            connection.send(self.name.encode())
        return self.takes


async def answer_to(copies, *parts: bytes, ends: bool = False) -> bytes:
    """What a client that sends these parts, one after the other, gets."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = asyncio.create_task(Router(copies).accept(listener))
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            for part in parts:
                await loop.sock_sendall(client, part)
                await asyncio.sleep(0)
            if ends:
                client.shutdown(socket.SHUT_WR)
            answer = await loop.sock_recv(client, 1_000)
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
    return answer


async def test_a_body_that_comes_in_parts_is_handed_over_whole():
    copy, body = Taking("1"), b'{"prompt_cache_key": "a"}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert await answer_to([copy], head[:9], head[9:], body[:5], body[5:]) == b"1"
    assert copy.got == [head + body]


async def test_what_a_dying_copy_does_not_take_goes_to_another():
    dying, other = Taking("1", takes=False), Taking("2")
    request = b"GET / HTTP/1.1\r\ncookie: falcon_mamba_copy=1\r\n\r\n"
    assert await answer_to([dying, other], request) == b"2"
    assert dying.got == other.got == [request]


async def test_a_copy_that_starts_gets_nothing_while_another_is_ready():
    starting, ready = Taking("1", "starting"), Taking("2")
    for _ in range(4):
        assert await answer_to([starting, ready], b"GET / HTTP/1.1\r\n\r\n") == b"2"
    assert await answer_to([starting], b"GET / HTTP/1.1\r\n\r\n") == b"1"


async def test_without_a_copy_the_client_is_told_to_try_again():
    answer = await answer_to([Taking("1", "down")], b"GET / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in answer


async def test_odd_beginnings_are_for_a_copy_to_refuse(monkeypatch):
    copy = Taking("1")
    assert await answer_to([copy], b"\x16\x03\x01nonsense", ends=True) == b"1"
    assert await answer_to([copy], b"x" * 20_000) == b"1"
    monkeypatch.setattr(router, "MAX_READ_S", 0.05)
    assert await answer_to([copy], b"GET / HT") == b"1"


@pytest.mark.parametrize("ends", [True, False])
async def test_a_connection_that_was_opened_ahead_and_not_used_is_closed(monkeypatch, ends):
    """A browser opens another for its next request, which its cookie then leads."""
    monkeypatch.setattr(router, "MAX_READ_S", 0.05)
    copy = Taking("1")
    assert await answer_to([copy], ends=ends) == b""
    assert not copy.got
