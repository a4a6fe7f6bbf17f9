"""Bodies and heads that are too long, too slow or too deep, over real sockets where it matters."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from falcon_mamba_app.middleware.body_limits import BodyLimits
from falcon_mamba_app.settings import load_settings
from tests.support.api_fixtures import USER, in_process
from tests.support.web_fixtures import serving, visiting

KIB = 1024
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def connection(port: int):
    """A raw connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_given_up(reader, writer, drip: bytes) -> bytes:
    """Send `drip` ten times a second until the server ends the connection, which it must do after
    its deadline of one second; what it said, nothing where it breaks the connection off.
    """
    started_s, said = time.monotonic(), bytearray()

    async def read() -> None:
        with suppress(ConnectionError):  # what came before the break counts
            while part := await reader.read(KIB):
                said.extend(part)

    reading = asyncio.create_task(read())
    while not reading.done():
        writer.write(drip)
        await asyncio.sleep(0.1)
        assert time.monotonic() - started_s < 30, "the server goes on waiting"
    assert time.monotonic() - started_s > 0.9
    await reading
    return bytes(said)


async def parts(number: int):
    """A body of so many KiB whose length is not declared."""
    for _ in range(number):
        yield b" " * KIB


@pytest.mark.parametrize("path", [CHAT, "/gradio_api/queue/join", "/gradio_api/cancel", "/config"])
async def test_a_declared_length_over_the_limit_is_refused_unread(path):
    async with visiting("--max-body-bytes", "4KiB") as client:
        response = await client.post(path, content=b"x" * 5 * KIB, headers=JSON)
    assert response.status_code == 413
    sentence = "the body is too large; allowed are 4096 bytes"
    body = response.json()
    assert (body["error"]["message"] if path == CHAT else body["detail"]) == sentence
    assert response.text.count(sentence) == 1


@pytest.mark.parametrize("path", [CHAT, "/gradio_api/queue/join", "/gradio_api/run/chat", "/login"])
async def test_an_undeclared_length_is_counted_as_it_comes(path):
    async with (
        serving("--max-body-bytes", "64KiB", "--auth", "a:b") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        await client.post("/login", data={"username": "a", "password": "b"})
        headers = {**JSON, "Authorization": "Bearer a:b"}
        # Little more than the limit: a write that fails would end the client before it reads.
        response = await client.post(path, content=parts(66), headers=headers)
    assert response.status_code == 413
    assert response.text.count("the body is too large") == 1


async def test_what_is_too_much_never_reaches_the_application():
    seen = 0

    async def app(scope, receive, send):
        nonlocal seen
        while (message := await receive()).get("more_body"):
            seen += len(message["body"])

    limited = BodyLimits(app, max_bytes=10 * KIB, max_state_bytes=0, timeout_s=5)
    async with in_process(limited) as client:
        response = await client.post("/", content=parts(4_000))
    assert response.status_code == 413
    assert seen == 10 * KIB


async def test_long_bodies_count_as_several_requests():
    async with visiting("--visitor-requests-per-minute", "9") as client:
        for status in (400, 429):  # 512 KiB are 4 parts more than one request
            response = await client.post(CHAT, content=b" " * 512 * KIB, headers=JSON)
            assert response.status_code == status, response.text
    assert response.headers["retry-after"]
    assert "9 requests came" in response.json()["error"]["message"]


async def test_a_state_has_a_limit_of_its_own():
    async with visiting("--max-body-bytes", "2KiB", "--max-state-bytes", "8KiB") as client:
        state = b"echo:" + b" " * 6 * KIB + b"1"
        assert (await client.put("/v1/sessions/a/state", content=state)).status_code == 200
        state = b"echo:" + b" " * 10 * KIB + b"1"
        response = await client.put("/v1/sessions/a/state", content=state)
        assert response.status_code == 413
        assert "8192" in response.json()["error"]["message"]
        response = await client.post("/v1/sessions/a/state", content=state)
        assert response.status_code == 413
        assert "2048" in response.json()["error"]["message"]


async def test_a_body_that_trickles_in_is_given_up():
    async with serving("--body-timeout-s", "1") as port, connection(port) as (reader, writer):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 1000\r\n\r\n".encode())
        answer = (await until_given_up(reader, writer, b" ")).decode()
    assert answer.startswith("HTTP/1.1 408")
    assert "the body did not arrive within 1 s" in answer


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_trickles_in_is_given_up(beginning):
    async with serving("--header-timeout-s", "1") as port, connection(port) as (reader, writer):
        writer.write(beginning)
        await until_given_up(reader, writer, b"X-More: 1\r\n" if beginning else b"")


async def test_the_second_head_of_a_connection_has_a_deadline_too():
    async with serving("--header-timeout-s", "1") as port, connection(port) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n")
        writer.write(b"GET /")
        await until_given_up(reader, writer, b"a")


async def test_the_rest_of_a_body_that_was_answered_has_a_deadline_too():
    """Nobody reads it and nothing counts it: such a connection stayed open for ever."""
    async with serving("--header-timeout-s", "1") as port, connection(port) as (reader, writer):
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"404 Not Found" in await reader.readuntil(b"\r\n")
        await until_given_up(reader, writer, b"1\r\nx\r\n")


async def test_a_connection_goes_on_after_a_body_that_was_answered_early():
    async with serving("--header-timeout-s", "1") as port, connection(port) as (reader, writer):
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert b"404 Not Found" in await reader.readuntil(b"\r\n")
        await reader.readuntil(b"}")
        writer.write(b"xx")
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"200 OK"), 60)


async def test_a_long_reply_outlives_both_deadlines():
    body = {"messages": [{"role": "user", "content": "LONG SLOW"}], "stream": True}
    async with (
        serving("--header-timeout-s", "1", "--body-timeout-s", "1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        client.stream("POST", CHAT, json=body) as reply,
    ):
        started_s = time.monotonic()
        async for line in reply.aiter_lines():
            assert "error" not in line
            if time.monotonic() - started_s > 1.5:
                break
        else:
            raise AssertionError("the reply ended early")


@pytest.mark.parametrize("path", [CHAT, "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"messages": ' + b"9" * 100_000 + b"}",
        b'{"seed": 1e999999, "messages": []}',
        b'{"fn_index": ' + b"9" * 5_000 + b', "session_hash": "a", "data": []}',
        b'{"fn_index": 99999, "session_hash": "a", "data": []}',
        b'{"fn_index": -1, "session_hash": "a", "data": []}',
        b'{"fn_index": 0, "session_hash": "a", "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"fn_index": 0, "session_hash": {"a": 1}, "data": null}',
        b'{"fn_index": 0, "event_data": {"index": [null]}, "session_hash": "", "data": [1e400]}',
        b"\x00\xff\xfe",
        b'"\\ud800"',
        b"",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
async def test_hostile_json_is_refused_and_the_server_goes_on(path, body):
    async with visiting() as client:
        response = await asyncio.wait_for(client.post(path, content=body, headers=JSON), timeout=60)
        # 500 is Gradio's, whose own answer cannot hold what was sent: infinities, half characters.
        assert response.status_code in (200, 400, 404, 413, 415, 422, 500), response.text
        if path == CHAT:
            assert response.status_code == 400, response.text
        assert (await client.post(CHAT, json={"messages": [USER]})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}, {"Content-Encoding": "deflate"}],
)
async def test_a_small_body_that_expands_to_very_much_is_refused(headers):
    """The API expands gzip and deflate up to a limit, the page nothing."""
    bomb = gzip.compress(json.dumps({"messages": [USER]}).encode() + b" " * 50_000_000)
    assert len(bomb) < 100_000
    async with visiting() as client:
        for path in (CHAT, "/gradio_api/queue/join"):
            response = await client.post(path, content=bomb, headers={**JSON, **headers})
            assert response.status_code in (400, 413, 415, 422)


async def test_web_sockets_are_refused():
    async with serving() as port, connection(port) as (reader, writer):
        writer.write(
            b"GET /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" not in await reader.readuntil(b"\r\n")


def test_the_limits_are_checked_when_they_are_set():
    limits = load_settings(["--max-body-bytes", "1MiB", "--max-state-bytes", "0"], {}).limits
    assert (limits.max_body_bytes, limits.max_state_bytes) == (2**20, 0)


async def test_a_body_in_many_small_pieces_counts_as_several_requests():
    """A packet for each byte costs the server more than the byte."""

    async def crumbs():
        for _ in range(1_000):
            yield b" "

    async with visiting("--visitor-requests-per-minute", "9") as client:
        response = await client.post(CHAT, content=crumbs(), headers=JSON)
    assert response.status_code == 429


async def test_who_signs_in_sends_a_name_and_a_password_and_no_more():
    async with visiting("--auth", "a:b") as client:
        response = await client.post("/login", content=b"x" * 9 * KIB)
    assert response.status_code == 413
    assert response.json()["detail"] == "the body is too large; allowed are 8192 bytes"
