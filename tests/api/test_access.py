"""API keys, and sessions that only their owner reaches."""

from __future__ import annotations

import pytest

from falcon_mamba_app.api.access import Access
from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import USER, bounded, in_process

ANNA = {"Authorization": "Bearer key-of-anna"}
BERT = {"Authorization": "Bearer schlüssel".encode()}
STATE = "/v1/sessions/talk/state"


@pytest.fixture
async def guarded(service):
    async with in_process(create_api(service, api_keys=("key-of-anna", "schlüssel"))) as client:
        yield client


@pytest.fixture
async def client(service):
    async with in_process(bounded(create_api(service), max_state_bytes=1000)) as client:
        yield client


async def talk(client, headers=None, key="talk"):
    body = {"messages": [USER], "prompt_cache_key": key}
    response = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/echo"),
        ("GET", STATE),
        ("PUT", STATE),
        ("DELETE", "/v1/sessions/talk"),
        ("GET", "/v1/nowhere"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic key-of-anna", "Bearer \xff"]
)
async def test_every_endpoint_asks_for_the_key(guarded, method, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    response = await guarded.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "key-of-anna" not in response.text


async def test_any_of_the_keys_opens_and_health_needs_none(guarded):
    for headers in (ANNA, BERT):
        assert (await guarded.get("/v1/models", headers=headers)).status_code == 200
        assert (await guarded.get("/metrics", headers=headers)).status_code == 200
    assert (await guarded.get("/health")).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, ANNA):
        response = await guarded.post("/health", headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_one_cache_key_under_two_api_keys_is_two_sessions(guarded):
    assert await talk(guarded, ANNA) == 0
    assert await talk(guarded, BERT) == 0
    assert await talk(guarded, ANNA) == 1
    assert (await guarded.delete("/v1/sessions/talk", headers=BERT)).status_code == 200
    assert (await guarded.delete("/v1/sessions/talk", headers=BERT)).status_code == 404
    assert (await guarded.get(STATE, headers=ANNA)).status_code == 200
    assert (await guarded.get(STATE, headers=BERT)).status_code == 404


def test_session_ids_cannot_be_guessed_or_confused():
    access = Access(())
    names = [("a", "bc"), ("ab", "c"), ("", "abc"), ('a","b', "c")]
    ids = {access.session_id(*name) for name in names}
    assert len(ids) == len(names)
    assert Access(()).session_id("a", "bc") not in ids


async def test_a_state_travels_as_a_file(client):
    await talk(client)
    exported = await client.get(STATE)
    assert exported.headers["content-type"] == "application/octet-stream"
    assert "attachment" in exported.headers["content-disposition"]
    imported = await client.put("/v1/sessions/other/state", content=exported.content)
    assert imported.json() == {"object": "session.state", "num_tokens": 6}
    assert await talk(client, key="other") == 1


async def test_a_cache_key_may_hold_any_text(client):
    await talk(client, key="a/b c?é")
    assert (await client.get("/v1/sessions/a%2Fb%20c%3F%C3%A9/state")).status_code == 200


async def test_a_forgotten_session_has_no_state(client):
    await talk(client)
    assert (await client.delete("/v1/sessions/talk")).json()["deleted"]
    assert (await client.get(STATE)).status_code == 404


async def test_a_session_that_is_not_there_cannot_be_deleted(client):
    await talk(client)
    await client.delete("/v1/sessions/talk")
    for key in ("talk", "never-seen"):
        response = await client.delete(f"/v1/sessions/{key}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
        assert "no such session" in response.json()["error"]["message"]


async def test_a_file_that_is_no_state_is_refused(client):
    response = await client.put(STATE, content=b"nonsense")
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_a_state_over_the_limit_is_refused(client):
    response = await client.put(STATE, content=b"echo:" + b"1" * 1000)
    assert response.status_code == 413
    assert "1000" in response.json()["error"]["message"]
