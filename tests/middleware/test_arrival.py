"""Every answer and every log line has the request's id; a slash too many changes nothing."""

from __future__ import annotations

import json
import logging

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.logs import DiscreetFormatter, JsonFormatter, request_id
from falcon_mamba_app.middleware.stack import protect
from falcon_mamba_app.settings import Settings
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService


@pytest.fixture
async def client():
    service = EchoService()
    await service.start()
    app = create_api(service)
    protect(app, Settings())
    async with in_process(app) as client:
        yield client


async def test_an_answer_carries_the_callers_id_or_one_of_its_own(client):
    own = [(await client.get("/v1/models")).headers["x-request-id"] for _ in range(2)]
    assert len(set(own)) == 2 and all(one.startswith("req_") for one in own)
    for path in ("/v1/models", "/v1/nothing", "/nowhere", "/health"):
        answer = await client.get(path, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "ünder"])
async def test_an_id_that_could_hide_in_a_log_is_replaced(client, given):
    answer = await client.get("/health", headers={"x-request-id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/health/", "/metrics/", "/v1/models/", "/v1/models//"])
async def test_a_slash_at_the_end_changes_nothing(client, path):
    assert (await client.get(path)).status_code == 200


async def test_a_slash_at_the_end_changes_nothing_for_bodies_either(client):
    answer = await client.post("/v1/chat/completions/", json={"messages": [USER]})
    assert answer.status_code == 200


async def test_live_means_no_restart_is_needed_and_ready_that_it_answers():
    service = EchoService()
    async with in_process(create_api(service)) as client:

        async def statuses() -> list[int]:
            paths = ("/health/live", "/health/ready", "/health")
            return [(await client.get(path)).status_code for path in paths]

        assert await statuses() == [200, 503, 503]
        await service.start()
        assert await statuses() == [200, 200, 200]
        await service.close()
        assert await statuses() == [503, 503, 503]
        assert (await client.get("/health/other")).status_code == 404


def record(message: str, **more: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "falcon_mamba_app.x", "msg": message, **more})


def test_a_log_line_carries_the_id_of_the_request_that_caused_it():
    formatter = DiscreetFormatter("%(message)s")
    assert formatter.format(record("loaded")) == "loaded"
    token = request_id.set("req_1")
    assert formatter.format(record("refused")) == "refused [req_1]"
    assert json.loads(JsonFormatter().format(record("refused")))["request_id"] == "req_1"
    request_id.reset(token)


def test_json_lines_hold_the_facts_and_no_messages_of_exceptions():
    said = "the user's words"
    try:
        raise ValueError(said)
    except ValueError as error:
        failed = record("failed", exc_info=(type(error), error, error.__traceback__))
    line = JsonFormatter().format(failed)
    assert "\n" not in line and "words" not in line
    facts = json.loads(line)
    assert facts["traceback"].endswith("ValueError")
    assert {"time", "level", "logger", "message"} <= facts.keys()
    assert (
        json.loads(JsonFormatter().format(record("done", facts={"status": 200})))["status"] == 200
    )
