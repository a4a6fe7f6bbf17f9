"""What operators see: health, metrics, models, and work that stops when its reader leaves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from falcon_mamba_app import __version__
from falcon_mamba_app.api.information import ABOUT_TOOLS
from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.http.transport import EventStream
from falcon_mamba_app.protocol import ServiceStats
from tests.support.api_fixtures import USER, in_process, on_loopback, until
from tests.support.echo_service import EchoService

SLOW = {"role": "user", "content": "LONG SLOW"}


class LoadingService(EchoService):
    """Half loaded, and knows little."""

    def stats(self) -> ServiceStats:
        return ServiceStats(status="loading", detail="reading weights", load_progress=0.5)


async def test_health_says_how_far_loading_has_come():
    async with in_process(create_api(LoadingService())) as client:
        response = await client.get("/health")
        models = await client.get("/v1/models")
    assert response.status_code == 503
    assert response.json() == {
        "status": "loading",
        "detail": "reading weights",
        "progress": 0.5,
        "model": None,
        "version": __version__,
    }
    assert models.status_code == 503
    assert "reading weights" in models.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/echo"])
async def test_head_is_answered_as_get_without_the_body(service, path):
    """Monitors that ask whether a server lives send HEAD."""
    async with on_loopback(create_api(service)) as url, httpx.AsyncClient(base_url=url) as client:
        whole, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_health_is_good_when_ready_and_bad_after_a_failure(service, client):
    good = await client.get("/health")
    assert (good.status_code, good.json()["status"]) == (200, "ready")
    await service.close()
    bad = await client.get("/health")
    assert (bad.status_code, bad.json()["status"]) == (503, "failed")
    failed = await client.post("/v1/chat/completions", json={"messages": [USER]})
    assert failed.json()["error"]["code"] == "engine_failure"


def samples(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_metrics_are_prometheus_text(client):
    await client.post("/v1/chat/completions", json={"messages": [USER]})
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    figures = samples(response.text)
    assert figures["falcon_mamba_ready"] == 1
    assert figures["falcon_mamba_requests_total"] == 1
    assert figures["falcon_mamba_sequences_running"] == 0
    assert figures["falcon_mamba_state_bytes"] == 860_160
    assert 'falcon_mamba_model_info{device="CPU, 2 threads"' in response.text


async def test_what_is_not_known_is_absent_from_the_metrics_not_0(client):
    figures = samples((await client.get("/metrics")).text)
    assert "falcon_mamba_gpu_memory_bytes" not in figures
    async with in_process(create_api(LoadingService())) as loading:
        figures = samples((await loading.get("/metrics")).text)
    loading = {"falcon_mamba_ready": 0, "falcon_mamba_load_progress_ratio": 0.5}
    assert loading.items() <= figures.items()
    assert "falcon_mamba_requests_total" not in figures


async def test_models_tell_what_is_loaded(service, client):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    (entry,) = listed["data"]
    assert (entry["id"], entry["object"]) == ("echo", "model")
    known = {**asdict(service.stats().model), "version": __version__, "tools": ABOUT_TOOLS}
    assert entry["falcon_mamba"] == json.loads(json.dumps(known))
    assert (await client.get("/v1/models/echo")).json() == entry
    missing = await client.get("/v1/models/tiiuae/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("n", [1, 3])
async def test_dropping_a_stream_stops_the_work(service, n):
    async with on_loopback(create_api(service)) as url, httpx.AsyncClient() as client:
        body = {"messages": [SLOW], "stream": True, "n": n}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if '"content":" word"' in line:
                    break
            await until(lambda: service.running == n)
        await until(lambda: service.running == 0)


@pytest.mark.parametrize("n", [1, 3])
async def test_a_reply_sent_whole_stops_when_its_reader_leaves(service, n):
    async with on_loopback(create_api(service)) as url, httpx.AsyncClient() as client:
        body = {"messages": [SLOW], "n": n}
        task = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
        await until(lambda: service.running == n)
        task.cancel()
        await until(lambda: service.running == 0)


async def test_a_reader_that_leaves_at_once_leaves_nothing_running(service):
    """The connection closes before the first byte of the answer can be sent."""
    async with on_loopback(create_api(service)) as url:
        body = json.dumps({"messages": [SLOW], "stream": True}).encode()
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        )
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()
        await until(lambda: service.requests_total == 20)
        await until(lambda: service.running == 0)


@pytest.mark.parametrize("sends_head", [False, True])
async def test_a_stream_that_cannot_be_sent_is_closed_when_its_reader_leaves(sends_head):
    """A reader that stalls and leaves finds the stream between two events, where no await of its
    own would tell it.
    """
    gone, was_closed = asyncio.Event(), []

    async def events():
        try:
            while True:
                yield b"event"
        finally:
            was_closed.append(True)

    async def lines():
        async for event in source:
            yield event

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body" or not sends_head:
            gone.set()
            await asyncio.Event().wait()

    source = events()
    await anext(source)
    await EventStream(lines(), closes=source)({"type": "http"}, receive, send)
    assert was_closed


async def test_leaving_one_stream_does_not_disturb_another(service):
    async with on_loopback(create_api(service)) as url, httpx.AsyncClient() as client:
        path = f"{url}/v1/chat/completions"
        words = {"role": "user", "content": "SLOW one two three"}
        staying = asyncio.create_task(client.post(path, json={"messages": [words]}))
        body = {"messages": [SLOW], "stream": True}
        async with client.stream("POST", path, json=body) as response:
            await anext(response.aiter_lines())
        answer = (await staying).json()
    assert answer["choices"][0]["message"]["content"] == "You said: SLOW one two three"


async def test_the_version_stands_in_the_models_and_the_metrics_too(client):
    (model, *_) = (await client.get("/v1/models")).json()["data"]
    assert model["falcon_mamba"]["version"] == __version__
    assert (
        f'falcon_mamba_app_info{{version="{__version__}"}} 1' in (await client.get("/metrics")).text
    )
