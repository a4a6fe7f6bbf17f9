"""The laboratory's routes: what they tell, and what they refuse."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from falcon_mamba_app.lab.attention import KNOWN_MODELS, LLAMA_2_7B
from falcon_mamba_app.protocol import Waiting
from falcon_mamba_app.ui.events import laboratory
from falcon_mamba_app.ui.events.laboratory import Laboratory
from falcon_mamba_app.ui.view.laboratory import frame_html
from falcon_mamba_app.ui.view.panel import OTHER_MODELS
from tests.support.api_fixtures import in_process
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import visiting

SHAPE = {"layers": 32, "kv_heads": 32, "head_dim": 128, "bytes_per_number": 2}
PLAN = {"lengths": [300], "depths": [0.5], "per_cell": 1}


async def test_its_files_are_kept_by_browsers_for_as_long_as_they_are_the_same():
    script, style = re.findall(r'data-\w+="(lab/[^"]+)"', frame_html())
    async with visiting() as client:
        for address in (script, style):
            answer = await client.get(f"/{address}")
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
            older = await client.get(f"/{address.partition('?')[0]}?v=older")
            assert older.headers["cache-control"] == "no-store"
        assert (await client.get("/lab/frame.js")).status_code == 404


@asynccontextmanager
async def at_the_routes():
    """A caller of the routes alone: a whole application takes half a second to build."""
    app, service = FastAPI(), EchoService()
    await service.start()
    Laboratory(service).add_to(app)
    async with in_process(app) as client:
        yield client


async def test_it_tells_the_models_size_and_limits_and_the_caches_to_compare_with():
    async with at_the_routes() as client:
        told = (await client.get("/lab/facts")).json()
    assert (told["model"], told["stateBytes"], told["trained"]) == ("echo", 860_160, 768)
    assert [one["name"] for one in told["attention"]] == [one.name for one in KNOWN_MODELS]


async def test_a_cache_of_any_shape_is_computed_as_the_panels_are():
    async with at_the_routes() as client:
        told = (await client.post("/lab/attention", json=SHAPE)).json()
    assert told["per_token"] == dict(OTHER_MODELS)["Llama 2 7B"] == LLAMA_2_7B.bytes_per_token
    assert told["corners"] == [[0, 0], [1_000_000, 1_000_000 * told["per_token"]]]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("attention", {**SHAPE, "layers": 0}, "layers is 0; allowed are whole numbers from 1"),
        ("attention", {**SHAPE, "windowed_layers": 33}, "windowed_layers is 33"),
        ("attention", {**SHAPE, "bytes_per_number": "2"}, "bytes_per_number is '2'"),
        ("attention", {"layers": 32}, "kv_heads is missing"),
        ("growth", {}, "tokens is missing"),
        ("growth", {"tokens": 999}, "tokens is 999; allowed are whole numbers from 1,000"),
        ("growth", {"tokens": 1_000_001}, "to 1,000,000"),
        ("growth", {"tokens": 50_000}, "at most"),  # of this server's limit
        ("probe", {**PLAN, "lengths": [50_000]}, "at most"),
        ("growth", {"tokens": 1_000, "written": -1}, "written is -1"),
        ("growth", {"tokens": 1_000, "text": ["a"]}, "text is"),
        ("probe", {**PLAN, "lengths": []}, "at least one length"),
        ("probe", {**PLAN, "done": [[1, 2]]}, "an answer is a list"),
        ("probe", {**PLAN, "done": [[300, 0.5, 0, {"a": 1}, 7]]}, "reply is 7"),
        ("probe", [], "no JSON object"),
        ("probe", "x", "no JSON object"),
    ],
)
async def test_what_cannot_be_run_is_refused_with_what_is_allowed(path, body, named):
    async with at_the_routes() as client:
        answer = await client.post(f"/lab/{path}", json=body)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("body", ["", "{", "[" * 50_000, "nan"])
async def test_what_is_no_json_is_refused(body):
    headers = {"Content-Type": "application/json"}
    async with at_the_routes() as client:
        answer = await client.post("/lab/growth", content=body, headers=headers)
    assert answer.status_code == 400


async def test_another_sites_page_cannot_start_a_run():
    headers = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    async with visiting() as client:
        answer = await client.post("/lab/growth", json={"tokens": 1_000}, headers=headers)
    assert answer.status_code == 403


async def test_a_server_without_the_models_tokenizer_says_where_the_laboratory_is():
    """As one with --backend-url."""
    async with at_the_routes() as client:
        growth = await client.post("/lab/growth", json={"tokens": 1_000})
        probe = await client.post("/lab/probe", json=PLAN)
    assert "--backend-url" in growth.json()["detail"]
    assert "--backend-url" in json.loads(probe.text.removeprefix("data: "))["problem"]


async def test_a_run_that_waits_shows_signs_of_life_and_can_be_closed(monkeypatch):
    monkeypatch.setattr(laboratory, "ALIVE_S", 0.001)
    gate, closed = asyncio.Event(), []

    async def run():
        try:
            await gate.wait()
            yield Waiting(1)
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    events = run()
    lines = laboratory._stream(events).body_iterator
    assert await anext(lines) == b": alive\n\n"
    gate.set()
    told = [await anext(lines) for _ in range(2)]
    assert b'data: {"kind":"waiting","position":1}\n\n' in told
    await lines.aclose()
    await events.aclose()
    assert closed == [True]
