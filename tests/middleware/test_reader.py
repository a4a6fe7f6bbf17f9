"""The reader of HTTP over real sockets: what one connection may take, and what it leaves in the
log. Behind it stands a small application that answers with what it was sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from uvicorn.server import ServerState

from falcon_mamba_app.middleware import limited_protocol as reader_module
from falcon_mamba_app.middleware.connections import Connections
from falcon_mamba_app.middleware.limited_protocol import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_READ_BYTES,
    limited_protocol,
)
from falcon_mamba_app.middleware.stack import listening
from falcon_mamba_app.settings import load_settings

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(scope, receive, send):
    """Answers with the method and the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message.get("more_body", False)
    told = f"{scope['method']} {length};".encode()
    headers = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


@asynccontextmanager
async def served(seen: list[int] | None = None) -> AsyncIterator[int]:
    """The port of a server of `echo`; `seen` gets the length of each of its reads."""
    limited = limited_protocol(Connections(0, 0, []), header_timeout_s=20, reader_timeout_s=20)
    config = uvicorn.Config(echo, lifespan="off", log_config=None, ws="none")
    config.load()

    state = ServerState()

    class Listening(limited):  # type: ignore[misc, valid-type]
        def data_received(self, data):
            if seen is not None:
                seen.append(len(data))
            super().data_received(data)

    def protocol():
        return Listening(config, state, {})

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0.01)


async def said_to(port: int, *sent: bytes, answers: int = 1) -> bytes:
    """What the server says to it: so many whole answers of `echo`, or less where it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with suppress(ConnectionError):
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0)
        while received.count(b";") < answers and (part := await reader.read(65_536)):
            received += part
    writer.close()
    return received


def refused(answer: bytes, status: int, words: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Connection: close" in head
    told = json.loads(body)
    assert words in (told["error"]["message"] if "error" in told else told["detail"])


@pytest.mark.parametrize(
    "frame",
    [
        b"1\r\nx\r\n" * 20_000,  # 300,000 of these stopped every reply for 2.9 s
        b"2\r\nxx\r\n" * 20_000,
        b"1;" + b"a" * 100_000 + b"\r\nx\r\n",
        b"1\r\nx\r\n0\r\nX-Trailer: " + b"a" * 100_000,
        b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["1 byte", "2 bytes", "an extension", "a trailer", "trailers"],
)
async def test_a_body_that_is_mostly_frame_is_refused(frame):
    async with served() as port:
        refused(await said_to(port, CHUNKED + frame), 400, "chunks of a few bytes")


async def test_chunks_of_a_line_are_read():
    chunk = b"20\r\n" + b"x" * 32 + b"\r\n"
    async with served() as port:
        answer = await said_to(port, CHUNKED + chunk * 20_000 + b"0\r\n\r\n")
    assert answer.endswith(b"POST 640000;")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"GET /" + b"a" * 100_000, f"more than {MAX_HEAD_BYTES} bytes"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, f"more than {MAX_HEAD_BYTES} bytes"),
        (b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 3_000, f"more than {MAX_HEADERS} headers"),
        (b"\r\n" * 50_000, f"more than {MAX_HEAD_BYTES} bytes"),
    ],
    ids=["address", "one header", "headers", "empty lines"],
)
async def test_a_head_without_end_is_refused(head, words):
    async with served() as port:
        refused(await said_to(port, head), 431, words)
        assert (await said_to(port, GET)).endswith(b"GET 0;")


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CHUNKED + b"zz\r\n"]
)
async def test_what_is_no_http_is_refused(sent):
    async with served() as port:
        refused(await said_to(port, sent), 400, "no HTTP request")


async def test_chunks_are_read_a_little_at_a_time():
    """Two hundred connections that bring the worst of it at once hold the loop for 40 ms."""
    seen: list[int] = []
    async with served(seen) as port:
        await said_to(port, CHUNKED, (b"fff\r\n" + b"x" * 0xFFF + b"\r\n") * 50 + b"0\r\n\r\n")
    assert max(seen) <= MAX_READ_BYTES


async def test_a_body_of_declared_length_is_read_at_once_but_not_what_follows():
    seen: list[int] = []
    body = POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with served(seen) as port:
        answer = await said_to(port, body + GET * 4, answers=5)
    assert answer.count(b"POST 1000000;") == 1 and answer.count(b"GET 0;") == 4
    assert max(seen) > MAX_READ_BYTES
    assert seen[-1] <= MAX_READ_BYTES


async def test_requests_ahead_of_their_answers_are_answered_up_to_a_few():
    async with served() as port:
        few = await said_to(port, GET * MAX_PIPELINED, answers=MAX_PIPELINED)
        assert few.count(b"GET 0;") == MAX_PIPELINED
        many = await said_to(port, GET * 1_000, answers=1_000)
    assert MAX_PIPELINED <= many.count(b"GET 0;") <= MAX_PIPELINED + 1


@pytest.mark.parametrize("frame", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_upgrade_is_not_taken_and_the_requests_are_answered(frame, size):
    """Java's client offers HTTP/2 in each first request, and sends its body after it."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n"
    body = b"abc" if frame.startswith(b"C") else b"3\r\nabc\r\n0\r\n\r\n"
    posted = POST + offer + frame + b"\r\n\r\n" + body
    got = GET.replace(b"\r\n\r\n", b"\r\n" + offer + b"\r\n")
    sent = posted + got + posted + GET
    parts = [sent[at : at + size] for at in range(0, len(sent), size)]
    async with served() as port:
        answer = await said_to(port, *parts, answers=4)
    told = [part.rpartition(b"\n")[2] for part in answer.split(b";")]
    assert told == [b"POST 3", b"GET 0", b"POST 3", b"GET 0", b""]


async def test_what_stands_after_a_body_is_no_header(monkeypatch):
    heads, answer = [], echo

    async def remember(scope, receive, send):
        await answer(scope, receive, send)
        heads.append(dict(scope["headers"]))

    monkeypatch.setitem(globals(), "echo", remember)
    async with served() as port:
        await said_to(port, CHUNKED + b"1\r\nx\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
    assert [b"x-forwarded-for" in head for head in heads] == [False]


async def test_strangers_write_nothing_into_the_log(caplog):
    """An upgrade wrote two lines a request, anything else that is wrong one."""
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with served() as port:
        for sent in (b"nonsense\r\n\r\n", upgrade, CHUNKED + b"1\r\nx\r\n" * 20_000):
            await said_to(port, sent)
        for sent in (CHUNKED, b"GET / HT"):
            await said_to(port, sent, answers=0)
    assert caplog.text == ""


async def test_a_refused_sender_that_goes_on_is_cut_off(monkeypatch):
    monkeypatch.setattr(reader_module, "LINGER_S", 0.05)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"nonsense\r\n\r\n")
        assert b"no HTTP request" in await reader.read()
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"more")
                await writer.drain()
                await asyncio.sleep(0.01)


def test_an_idle_connection_is_kept_longer_than_clients_and_proxies_keep_it():
    """A request that leaves on one which the server closes at that moment is lost."""
    assert listening(load_settings([], {}))["timeout_keep_alive"] > 60  # nginx; httpx 5
