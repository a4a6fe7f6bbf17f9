"""Crowds of requests and of closing connections take turns with everybody else, by counting."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from falcon_mamba_app.middleware.connections import Connections
from falcon_mamba_app.middleware.limited_protocol import limited_protocol
from falcon_mamba_app.middleware.page_line import NUM_PLACES, PageLine, Places
from falcon_mamba_app.middleware.stack import listening
from falcon_mamba_app.middleware.turns import MAX_ACCEPTED, MAX_BEGUN, MAX_ENDED, FewATurn, Turns
from falcon_mamba_app.settings import load_settings
from falcon_mamba_app.visitors import anybody
from falcon_mamba_app.web_server import listen


def request(address: str, path: str = "/health", visitor: object = None) -> dict:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "client": (address, 1),
        "state": {"visitor": visitor},
    }


async def turns_of_the_loop(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_few_works_run_in_a_turn_and_a_newcomer_waits_for_few_of_a_crowd():
    few, done, turn = FewATurn(3), [], 0
    for number in range(100):
        few.run("crowd", lambda n=number: done.append((turn, n)))
    few.run("newcomer", lambda: done.append((turn, "newcomer")))
    for turn in range(1, 60):  # noqa: B007  # read by the works
        await asyncio.sleep(0)
    a_turn = [sum(at == one for at, _ in done) for one in range(60)]
    assert max(a_turn) == 3 and len(done) == 101
    assert [work for _, work in done].index("newcomer") < 3 * 3
    assert [work for _, work in done if work != "newcomer"] == list(range(100))


async def test_a_work_that_fails_takes_no_other_along(caplog):
    few, done = FewATurn(1), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: done.append("failed"))
    few.run("a", lambda: done.append(1))
    few.run("a", lambda: 1 / 0)
    few.run("a", lambda: done.append(2))
    await turns_of_the_loop(10)
    assert done == [1, "failed", 2]


async def test_requests_begin_a_few_in_a_turn_whatever_address_they_come_from():
    begun = []

    async def app(scope, receive, send):
        begun.append(scope["client"][0])

    turns = Turns(app)
    asks = [turns(request(f"198.18.0.{n % 9}"), None, None) for n in range(90)]
    tasks = [asyncio.create_task(one) for one in asks]
    seen = [0]
    while len(begun) < 90:
        await asyncio.sleep(0)
        seen.append(len(begun))
    assert max(b - a for a, b in zip(seen, seen[1:], strict=False)) <= MAX_BEGUN
    await asyncio.gather(*tasks)


async def test_a_request_alone_begins_at_once():
    begun = []

    async def app(scope, receive, send):
        begun.append(scope["path"])

    turns = Turns(app)
    with pytest.raises(StopIteration):
        turns(request("198.18.0.1"), None, None).send(None)
    assert begun == ["/health"]


async def test_who_is_cancelled_in_line_holds_nobody_up():
    few = Turns(partial(_note, begun := []))
    tasks = [asyncio.create_task(few(request("a", str(n)), None, None)) for n in range(30)]
    await asyncio.sleep(0)
    for task in tasks[MAX_BEGUN:-1]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun[-1] == "29"


async def _note(begun, scope, receive, send):
    begun.append(scope["path"])


async def test_connections_that_end_together_end_a_few_in_a_turn(monkeypatch):
    turn, ended = 0, []
    lost = "connection_lost"
    monkeypatch.setattr(HttpToolsProtocol, lost, lambda self, error: ended.append(turn))
    limited = limited_protocol(Connections(0, 0, []), header_timeout_s=20, reader_timeout_s=20)
    config = uvicorn.Config(_note, lifespan="off", log_config=None, ws="none")
    config.load()
    crowd = [limited(config, ServerState(), {}) for _ in range(100)]
    for one in crowd:
        one.connection_lost(None)
    for turn in range(1, 30):  # noqa: B007  # read by the patch
        await asyncio.sleep(0)
    assert len(ended) == 100 and max(map(ended.count, ended)) <= MAX_ENDED


async def test_a_thousand_who_connect_at_once_get_in_and_a_turn_accepts_few():
    settings, made, turn = load_settings(["--port", "0"], {}), [], 0

    class Noting(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(turn)
            transport.close()

    backlog = listening(settings)["backlog"]
    with listen(settings.server) as listener:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Noting, sock=listener, backlog=backlog):
            # The loop stands still meanwhile: who does not get in waits for a second or more.
            with ExitStack() as crowd:
                for _ in range(1_000):
                    crowd.enter_context(socket.create_connection(listener.getsockname(), 0.9))
                while len(made) < 1_000:
                    turn += 1
                    await asyncio.sleep(0)
    assert max(map(made.count, made)) <= MAX_ACCEPTED


async def test_a_visitor_has_one_place_and_all_have_two():
    places, holding, most = Places(2), [], []

    async def hold(name):
        await places.take(name)
        holding.append(name)
        most.append(len(holding))
        assert len(set(holding)) == len(holding), "a name has two places"
        await turns_of_the_loop(3)
        holding.remove(name)
        places.give_back(name)
        order.append(name)

    order = []
    crowd = [asyncio.create_task(hold("crowd")) for _ in range(20)]
    await turns_of_the_loop(2)
    late = [asyncio.create_task(hold(name)) for name in ("anna", "tom")]
    await asyncio.gather(*crowd, *late)
    assert max(most) == 2
    assert order.index("anna") <= 2 and order.index("tom") <= 4


async def test_a_place_given_to_somebody_who_has_gone_goes_on_to_the_next():
    places = Places(1)
    await places.take("a")
    gone = asyncio.create_task(places.take("b"))
    next_one = asyncio.create_task(places.take("c"))
    await asyncio.sleep(0)
    places.give_back("a")  # to b, who leaves before it knows
    gone.cancel()
    await next_one
    await asyncio.gather(gone, return_exceptions=True)
    places.give_back("c")
    await places.take("d")


async def test_pages_are_made_two_at_a_time_and_a_slow_reader_holds_no_place():
    making, most, visitors = 0, 0, [anybody() for _ in range(6)]
    for number, visitor in enumerate(visitors):
        visitor.name = str(number)
    slow = asyncio.Event()

    async def app(scope, receive, send):
        nonlocal making, most
        making += 1
        most = max(most, making)
        await turns_of_the_loop(3)
        making -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        if message["type"] == "http.response.body":
            await slow.wait()

    line = PageLine(app)
    asks = [line(request("x", "/config", one), None, send) for one in visitors for _ in range(5)]
    tasks = [asyncio.create_task(one) for one in asks]
    await turns_of_the_loop(500)
    assert making == 0 and most == NUM_PLACES and not any(task.done() for task in tasks)
    api = SimpleNamespace(done=False)

    async def answer(scope, receive, send):
        api.done = True

    await PageLine(answer)(request("x", "/v1/models"), None, send)
    assert api.done
    slow.set()
    await asyncio.gather(*tasks)
