"""Before the app is there, whoever comes is answered."""

from __future__ import annotations

import asyncio

from starlette.responses import PlainTextResponse

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.middleware.opening import STARTING, Opening
from tests.support.api_fixtures import in_process

PAGE = (ASSETS / "opening.html").read_text("utf-8")


async def test_before_the_app_is_there_the_page_waits_and_health_says_so():
    async with in_process(Opening(PAGE)) as client:
        page = await client.get("/")
        health = await client.get("/health")
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        call = await client.post("/v1/chat/completions", json={})
        event = await client.post("/gradio_api/queue/join", json={})
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert STARTING.split(";")[0] in page.text  # its script looks for the words of /health
    assert "'sha256-" in page.headers["content-security-policy"]
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert (call.status_code, call.json()["error"]["message"]) == (503, STARTING)
    assert (event.status_code, event.json()["detail"]) == (503, STARTING)
    assert call.headers["retry-after"] == health.headers["retry-after"] == "1"


async def test_meanwhile_health_and_every_refusal_say_how_far_a_download_is():
    opening = Opening(PAGE)
    opening.tell(0.25, "downloading weights, 1.05 of 4.20 GB")
    async with in_process(opening) as client:
        health = (await client.get("/health")).json()
        call = await client.post("/v1/chat/completions", json={})
    assert health["progress"] == 0.25 and health["status"] == "loading"
    told = "the server is starting: downloading weights, 1.05 of 4.20 GB"
    assert health["detail"] == call.json()["error"]["message"] == told


async def test_below_a_root_path_the_page_that_waits_looks_there():
    async with in_process(Opening(PAGE, root_path="/demo")) as client:
        assert '<base href="/demo/" />' in (await client.get("/demo/")).text
        assert (await client.get("/demo/health")).json()["status"] == "loading"


async def test_once_it_is_there_the_app_answers_and_lives_as_long_as_the_server():
    told: list[str] = []

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await PlainTextResponse("the app")(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            told.append((await receive())["type"])
            await send({"type": f"lifespan.{step}.complete"})

    opening, news, said = Opening(PAGE), asyncio.Queue(), []
    await news.put({"type": "lifespan.startup"})

    async def send(message):
        said.append(message["type"])

    living = asyncio.create_task(opening({"type": "lifespan"}, news.get, send))
    await asyncio.sleep(0)
    opening.open(app)
    async with in_process(opening) as client:
        assert (await client.get("/")).text == "the app"
    await news.put({"type": "lifespan.shutdown"})
    await living
    assert told == ["lifespan.startup", "lifespan.shutdown"]
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_server_that_ends_before_its_app_is_there_ends():
    news, said = asyncio.Queue(), []
    for step in ("startup", "shutdown"):
        await news.put({"type": f"lifespan.{step}"})

    async def send(message):
        said.append(message["type"])

    await opening_ends(Opening(PAGE), news, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def opening_ends(opening, news, send):
    await asyncio.wait_for(opening({"type": "lifespan"}, news.get, send), timeout=60)
