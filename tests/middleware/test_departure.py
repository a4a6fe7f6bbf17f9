"""What a server says about itself as one of several, and while it leaves."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from falcon_mamba_app.middleware.departure import Departure


def served(**options):
    paths = ("/", "/demo/", "/demo/v1/models", "/v1/models", "/health", "/health/ready")
    app = Starlette(routes=[Route(path, lambda _: PlainTextResponse("here")) for path in paths])
    departure = Departure(app, cookie="home", **options)
    transport = httpx.ASGITransport(departure)
    return departure, httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_one_of_several_names_itself_to_pages_that_do_not_know_it():
    _, client = served(copy="2")
    assert "home=2; Path=/;" in (await client.get("/")).headers["set-cookie"]
    assert "set-cookie" not in (await client.get("/")).headers
    moved = await client.get("/", headers={"cookie": "home=1"})
    assert "home=2" in moved.headers["set-cookie"]
    assert "set-cookie" not in (await client.get("/v1/models")).headers


async def test_a_server_alone_sets_no_cookie_and_keeps_connections():
    _, client = served()
    for path in ("/", "/v1/models"):
        assert not {"set-cookie", "connection"} & (await client.get(path)).headers.keys()


async def test_a_connection_that_was_handed_over_ends_with_an_answer_of_the_api():
    _, client = served(copy="1", is_handed=True, root_path="/demo")
    assert (await client.get("/demo/v1/models")).headers["connection"] == "close"
    page = await client.get("/demo/")
    assert "connection" not in page.headers
    assert "Path=/demo;" in page.headers["set-cookie"]


async def test_a_server_that_drains_is_not_ready_and_lets_its_connections_go():
    departure, client = served(copy="1")
    assert (await client.get("/health/ready")).status_code == 200
    departure.is_draining = True
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert (await client.get("/")).headers["connection"] == "close"
    assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live"])
async def test_another_process_has_another_name_at_health(path):
    (_, first), (_, second) = served(), served()
    lives = [(await one.get(path)).headers["x-server-life"] for one in (first, first, second)]
    assert lives[0] == lives[1] != lives[2]


@pytest.mark.parametrize("path", ["/", "/v1/models"])
async def test_only_requests_of_the_api_count_as_open(path):
    departure, client = served()
    seen = []
    inner = departure._app

    async def looking(scope, receive, send):
        seen.append(departure.num_open)
        await inner(scope, receive, send)

    departure._app = looking
    await client.get(path)
    assert seen == [int(path != "/")]
    assert departure.num_open == 0
