"""The description at /v1/openapi.json: complete, sound in itself, and true."""

from __future__ import annotations

import json
import re

import pytest

from falcon_mamba_app.api.description import BODIES
from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService


@pytest.fixture
async def http():
    service = EchoService()
    await service.start()
    async with in_process(create_api(service)) as http:
        yield http


@pytest.fixture
async def described(http):
    answer = await http.get("/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json()


async def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(described):
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described))
    assert BODIES.keys() <= described["paths"].keys()
    assert set(names) <= described["components"]["schemas"].keys() and "ChatBody" in names
    operations = [op for path in described["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations) > 15
    for path, methods in described["paths"].items():
        for operation in methods.values():
            given = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert given == set(re.findall(r"{(\w+)}", path))


async def test_every_described_operation_is_there(http, described):
    """An empty or missing body is refused by its reader, never as a path that does not exist."""
    for path, methods in described["paths"].items():
        for method in methods:
            url = re.sub(r"{\w+}", "x", path)
            body = {"json": {}} if method in ("post", "put") else {}
            answer = await http.request(method.upper(), url, **body)
            assert answer.status_code < 600 and answer.status_code != 405, (method, path)
            if answer.status_code == 404:
                assert "no endpoint" not in answer.text, (method, path)


async def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(http, described):
    for path, methods in described["paths"].items():
        url = re.sub(r"{\w+}", "x", path)
        for method in ("TRACE", "PATCH"):
            answer = await http.request(method, url)
            assert answer.status_code == 405, (method, path)
            assert {name.upper() for name in methods} <= {*answer.headers["allow"].split(", ")}
            assert "not allowed here" in answer.json()["error"]["message"]


async def test_what_answers_and_what_is_refused_have_the_described_shape(http, described):
    from jsonschema import Draft202012Validator

    components = described["components"]["schemas"]
    chat = {"$ref": "#/components/schemas/ChatBody", "components": {"schemas": components}}
    body = {"messages": [USER], "temperature": 0.5, "n": 2}
    Draft202012Validator(chat).validate(body)
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    refused = await http.post("/v1/chat/completions", json={**body, "n": "two"})
    assert not Draft202012Validator(chat).is_valid({**body, "n": "two"})
    Draft202012Validator(components["Error"]).validate(refused.json())


async def test_a_path_that_is_not_there_is_told_those_that_are_and_no_others(http, described):
    answer = await http.post("/v1/embeddings", json={})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 404 and '"/v1/embeddings"' in message
    offered = message.partition("this server has ")[2].split(", ")
    assert offered == sorted({*described["paths"]} - {"/v1/openapi.json"})


@pytest.mark.parametrize(
    "path", ["sessions/a%0Ab/state", "sessions/a%0A", "models/a%0Ab", "no%0Ane"]
)
async def test_a_line_break_in_a_path_is_refused_as_any_other_name(http, path):
    answer = await http.get(f"/v1/{path}")
    assert answer.status_code in (404, 405) and answer.json()["error"]["message"]
