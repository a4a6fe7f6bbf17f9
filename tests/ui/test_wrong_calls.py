"""What a caller of the page's endpoints got wrong is said to be that, and is not in the log."""

from __future__ import annotations

import logging

import httpx
import pytest
from gradio.routes import App

from tests.support.api_fixtures import in_process
from tests.support.web_fixtures import Page, serving, whole_app
from tests.ui.test_page import CONTROLS

NO_SUCH = "no such event"
CASES = [
    ("queue/join", {"fn_index": 9_999, "data": []}, 404, NO_SUCH),
    ("queue/join", {"fn_index": -1, "data": []}, 404, NO_SUCH),
    ("queue/join", {"fn_index": 0, "data": ["hello"]}, 422, "data has 1 of the 6 values"),
    ("run/predict", {"fn_index": 9_999, "data": []}, 404, NO_SUCH),
    ("run/nothing", {"data": []}, 404, NO_SUCH),
    ("api/nothing", {"data": []}, 404, NO_SUCH),
    ("call/nothing", {"data": []}, 404, NO_SUCH),
    ("call/chat", {"data": []}, 422, "data has 0 of the 6 values"),
    ("call/complete", {"data": ["a"]}, 422, "data has 1 of the 5 values"),
    ("call/v2/nothing", {"prompt": "a"}, 404, NO_SUCH),
    ("call/v2/chat", {}, 422, "required argument: message"),
    ("call/v2/chat", {"message": "a", "colour": "red"}, 422, "`colour` is not a valid"),
]


@pytest.fixture
async def client():
    async with (
        serving() as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


@pytest.fixture
def errors(caplog):
    """What the log holds of errors."""
    yield lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize(("path", "body", "status", "words"), CASES)
async def test_a_wrong_call_is_the_callers_and_not_the_servers(
    client, errors, path, body, status, words
):
    response = await client.post(f"/gradio_api/{path}", json={"session_hash": "a", **body})
    if "v2" in path:  # there, everything in the body is a parameter
        response = await client.post(f"/gradio_api/{path}", json=body)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]
    assert errors() == []


@pytest.mark.parametrize("path", ["config", "gradio_api/call/v2/chat"])
async def test_a_key_error_of_a_route_is_the_servers_and_is_logged(caplog, path):
    """It was answered with "no such event", and nothing told of the bug."""
    app = whole_app()
    (page,) = [route.app for route in app.routes if isinstance(getattr(route, "app", None), App)]

    def broken():
        raise KeyError("a bug")

    page.get_blocks = broken  # every route of Gradio's calls it
    async with in_process(app) as client:
        if "v2" in path:
            answer = await client.post(f"/{path}", json={"message": "hello"})
        else:
            answer = await client.get(f"/{path}")
    assert answer.status_code == 500
    assert "unexpected KeyError" in caplog.text and "broken" in caplog.text
    assert "a bug" not in answer.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([5, "", None, None, None, None], "The message must be a text"),
        ([{"path": "/etc/passwd"}, "", None, None, None, None], "The message must be a text"),
        (["a", 5, None, None, None, None], "system prompt"),
        (["a", "", "hot", None, None, None], "Temperature is 'hot'"),
        (["a", "", None, None, 1.5, None], "Max_new_tokens is 1.5"),
    ],
)
async def test_a_value_of_the_wrong_kind_is_a_sentence(client, errors, values, words):
    begun = await client.post("/gradio_api/call/chat", json={"data": values})
    told = await client.get(f"/gradio_api/call/chat/{begun.json()['event_id']}")
    assert "event: error" in told.text
    assert words in told.text
    assert errors() == []


async def test_a_value_beyond_a_sliders_end_is_a_sentence_too(client, errors):
    page = Page(client, (await client.get("/config")).json())
    controls = [CONTROLS[0], 99, *CONTROLS[2:]]
    assert "Value 99 is greater" in await page.cause("composer", "submit", "hello", *controls)
    assert errors() == []


async def test_calls_in_order_are_answered(client):
    for path, body in (
        ("call/chat", {"data": ["hello", "", None, None, None, None]}),
        ("call/v2/chat", {"message": "hello"}),
    ):
        begun = await client.post(f"/gradio_api/{path}", json=body)
        told = await client.get(f"/gradio_api/{path}/{begun.json()['event_id']}")
        assert "You said: hello" in told.text
