"""What goes wrong around a running server, and what its visitors see of it (docs/failures.md)."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import torch

from benchmarks.lib.page_client import Tab, page_map
from falcon_mamba_app.service.local.service import LocalService
from tests.app.test_app import start, wait_until_ready
from tests.support.api_fixtures import USER, sse_values
from tests.support.services import make_local_service, settled
from tests.support.web_fixtures import serving

ENDLESS = {"messages": [USER], "max_tokens": 4_000, "ignore_eos": True, "stream": True}
NOWHERE = "/proc/nowhere"  # nobody can make it, root neither
# Reads one piece of a stream, says so, and waits to be killed.
READER = """
import json, sys, urllib.request
request = urllib.request.Request(
    sys.argv[1] + "/v1/chat/completions", sys.argv[2].encode(), {"Content-Type": "application/json"}
)
with urllib.request.urlopen(request) as answer:
    answer.readline()
    print("reading", flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def served(*options: str, **limits: Any) -> AsyncIterator[tuple[LocalService, Any]]:
    """A server over the bundled model, and a client of it."""
    service = make_local_service(**limits)
    async with (
        serving(*options, service=service) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        yield service, http
    await service.close()


async def read(lines: AsyncIterator[str]) -> str:
    return "".join([line async for line in lines])


async def test_a_client_killed_in_mid_stream_gives_its_slot_back():
    async with served() as (service, http):
        command = [sys.executable, "-c", READER, str(http.base_url).rstrip("/")]
        client = await asyncio.create_subprocess_exec(
            *command, json.dumps(ENDLESS), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == b"reading\n"
        assert service.stats().running == 1
        client.kill()
        await client.wait()
        await settled(lambda: service.stats().running == 0)


async def converse(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Two turns of a session; their answers."""
    messages, answers = [USER], []
    for _ in range(2):
        body = {"messages": messages, "max_tokens": 5, "prompt_cache_key": "k", "temperature": 0}
        answers.append((await http.post("/v1/chat/completions", json=body)).json())
        messages = [*messages, answers[-1]["choices"][0]["message"], USER]
    return answers


async def test_without_room_for_snapshots_conversations_go_on_and_are_read_again():
    async with served() as (_, roomy), served(snapshot_bytes=1_000_000) as (service, tight):
        expected, found = await converse(roomy), await converse(tight)
        texts = [[answer["choices"] for answer in answers] for answers in (expected, found)]
        assert texts[0] == texts[1]
        assert service.stats().snapshots == 1
        assert service.stats().snapshot_bytes <= 1_000_000


async def test_without_any_snapshots_a_state_is_refused_with_both_numbers():
    async with served(snapshot_bytes=0) as (service, http):
        for answer in await converse(http):
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        refused = await http.put("/v1/sessions/k/state", content=b"x" * 99)
        assert refused.status_code == 400
        assert "99 bytes; this server keeps at most 0" in refused.json()["error"]["message"]


async def break_device(service: LocalService, error: Exception, *, is_dead: bool = False) -> None:
    """The next decode step raises, as a device does in the middle of one; a dead device raises
    again when it is asked whether it still answers.
    """

    def fail(rows):
        del engine._runner.decode
        raise error

    def answer_no_more():
        raise error

    engine = await asyncio.wrap_future(service._worker.call(lambda engine: engine))
    engine._runner.decode = fail
    if is_dead:
        engine._refuse_dead_device = answer_no_more


async def test_out_of_memory_in_mid_step_ends_those_replies_and_the_next_ones_go_on():
    async with served() as (service, http):
        async with http.stream("POST", "/v1/chat/completions", json=ENDLESS) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await break_device(service, torch.OutOfMemoryError("CUDA out of memory"))
            (*_, last) = sse_values("\n".join([line async for line in lines]))
        assert "ran out of memory in mid-step" in last["error"]["message"]
        assert (await http.get("/health")).status_code == 200
        assert all(answer["choices"] for answer in await converse(http))
        await settled(lambda: service.stats().running == 0)


async def test_a_device_that_fails_ends_all_replies_with_a_sentence_and_health_says_so():
    async with served() as (service, http):
        await converse(http)
        tab = Tab(http, await page_map(http))
        await tab.open()
        page = asyncio.create_task(read(tab.send("Tell me a story", max_new_tokens=4_000)))
        async with http.stream("POST", "/v1/chat/completions", json=ENDLESS) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await settled(lambda: service.stats().running == 2)
            await break_device(
                service, RuntimeError("CUDA error: device-side assert"), is_dead=True
            )
            (*_, last) = sse_values("\n".join([line async for line in lines]))
        assert "the engine failed" in last["error"]["message"]
        assert "restart the server" in last["error"]["message"]
        assert "The engine failed (RuntimeError: CUDA error" in await page
        health = await http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "restart the server" in health.json()["detail"]
        assert (await http.post("/v1/chat/completions", json=ENDLESS)).status_code == 503
        assert len((await http.get("/v1/sessions/k/state")).content) > 800_000
        later = Tab(http, await page_map(http))
        await later.open(tab.session_id)
        assert "The engine failed" in await read(later.attach())
        for open_tab in (tab, later):
            open_tab.close()


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app without a home that can be written; and from the moment that it is ready on every
    write to a file fails, as on a full disk.
    """
    process, address = start(HOME=NOWHERE, XDG_CACHE_HOME=NOWHERE, HF_HOME=NOWHERE)
    wait_until_ready(address)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    yield process, address
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.slow
async def test_neither_a_home_that_cannot_be_written_nor_a_disk_that_fills_changes_anything(
    failing,
):
    """Nor is a word printed of it, as the next test sees."""
    _, address = failing
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        await converse(http)
        state = await http.get("/v1/sessions/k/state")
        brought = await http.put("/v1/sessions/branch/state", content=state.content)
        assert brought.status_code == 200
        tab = Tab(http, await page_map(http))
        await tab.open()
        assert "Done" in await read(tab.send("hello"))
        tab.close()


@pytest.mark.slow
async def test_pages_open_in_mid_reply_are_told_that_the_server_stops(failing):
    process, address = failing
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        tabs = [Tab(http, await page_map(http)) for _ in range(3)]
        for tab in tabs:
            await tab.open()
        replies = [tab.send("Tell me a story", max_new_tokens=4_000) for tab in tabs]
        for reply in replies:
            while "decoding" not in await anext(reply):
                pass
        process.send_signal(signal.SIGTERM)
        asked_s = time.monotonic()
        for reply in replies:
            assert "The server is stopping" in await read(reply)
        with process.stdout as output:  # `communicate` would lose what was read ahead
            printed = output.read()
        for tab in tabs:
            tab.close()
    assert process.wait(timeout=60) in (130, -signal.SIGTERM)
    assert time.monotonic() - asked_s < 60
    assert not [word for word in ("Traceback", "ERROR", "leaked") if word in printed], printed


async def test_a_reader_that_stops_reading_is_cut_off_and_takes_nothing_from_the_others():
    """After a minute without a byte taken, here after a second."""
    async with served("--reader-timeout-s=1") as (service, http):
        body = json.dumps({**ENDLESS, "logprobs": True, "top_logprobs": 20}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        # Of the loopback's segments of 64 KB the system would keep megabytes for the reader.
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        reader.connect((http.base_url.host, http.base_url.port))
        reader.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await settled(lambda: service.stats().running == 1)
        assert all(answer["choices"] for answer in await converse(http))
        await settled(lambda: not service._streams, timeout_s=100)
        reader.settimeout(60)
        assert not await asyncio.to_thread(_comes_to_its_end, reader)
        reader.close()


def _comes_to_its_end(reader: socket.socket) -> bool:
    """Whether what the server sent is a whole answer."""
    received = b""
    with suppress(ConnectionError):
        while piece := reader.recv(65_536):
            received += piece
    return b"[DONE]" in received


def thousand_half_open(http: httpx.AsyncClient) -> list[socket.socket]:
    """Connections of which half have said nothing, and half have begun."""
    address = (http.base_url.host, http.base_url.port)
    half_open = [socket.create_connection(address) for _ in range(1_000)]
    for connection in half_open[::2]:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
    return half_open


async def test_a_thousand_half_open_connections_stop_nobody():
    async with served("--header-timeout-s=3600") as (_, http):
        half_open = thousand_half_open(http)
        assert all(answer["choices"] for answer in await converse(http))
        assert all(_is_open(connection) for connection in half_open)
        for connection in half_open:
            connection.close()


async def test_a_thousand_half_open_connections_are_closed_at_their_deadline():
    async with served("--header-timeout-s=1") as (_, http):
        for connection in thousand_half_open(http):
            connection.settimeout(60)
            assert await asyncio.to_thread(_is_closed, connection)
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
