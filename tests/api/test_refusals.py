"""What the API refuses, and that it says so in one sentence with OpenAI's error body."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from falcon_mamba_app.api import reading, schemas
from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import Overloaded
from tests.support.api_fixtures import USER, bounded, in_process, sse_values
from tests.support.echo_service import EchoService

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(service):
    async with in_process(bounded(create_api(service), max_body_bytes=200_000)) as client:
        yield client


def error_of(response, status: int = 400) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"] and "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{}]),
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("prediction", [1]),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("chat_template", "{{ messages }}"),
        ("return_tokens_as_token_ids", True),
        ("mirostat", 2),
        ("suffix", "end"),
    ],
)
async def test_what_this_server_does_not_have_is_refused_not_ignored(client, field, value):
    error = error_of(await client.post(CHAT, json={"messages": [USER], field: value}))
    assert error["param"] == field
    assert field in error["message"] and "leave it out" in error["message"]
    assert error["code"] == "unsupported_parameter"
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "value", [[1], "x", {"messages": []}, {"no name": 1}, {"a": "x" * 20_000}, {"tokenize": True}]
)
async def test_values_for_a_template_are_bounded_and_replace_nothing_of_the_servers(client, value):
    body = {"messages": [USER], "chat_template_kwargs": value}
    error = error_of(await client.post(CHAT, json=body))
    assert error["param"].startswith("chat_template_kwargs") and "it " in error["message"]


@pytest.mark.parametrize("fields", [{"best_of": 2}, {"best_of": 1, "stream": True}])
async def test_best_of_is_refused_where_it_would_change_the_answer(client, fields):
    error = error_of(await client.post(COMPLETIONS, json={"prompt": "a", **fields}))
    assert error["param"] == "best_of"


@pytest.mark.parametrize("where", [CHAT, COMPLETIONS])
async def test_an_unknown_field_is_named(client, where):
    body = {"messages": [USER]} if where == CHAT else {"prompt": "a"}
    error = error_of(await client.post(where, json={**body, "temprature": 1}))
    assert error["param"] == "temprature"
    assert "temprature" in error["message"]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "owner", "content": "x"}, "role"),
        ({"content": "x"}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": "x", "name": 5}, "name"),
        ({"role": "user", "content": "x", "color": "red"}, "color"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "tool_calls[0]"),
        ({"role": "user", "content": "x", "tool_calls": [{}]}, "tool_calls"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "tool", "content": 5, "tool_call_id": "a"}, "content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text"),
        ({"role": "user", "content": ["x", 5]}, "content[1]"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "color": "red"}]},
            "content[0].color",
        ),
    ],
)
async def test_a_refusal_tells_the_whole_path_and_stands_alone(client, message, path):
    """openai's newest client prints the message and nothing else."""
    error = error_of(await client.post(CHAT, json={"messages": [USER, message]}))
    assert error["param"] == f"messages[1].{path}"
    assert error["param"] in error["message"]


async def test_what_was_sent_is_quoted_briefly(client):
    for value in ("x" * 10_000, ["x"] * 10_000, {str(i): i for i in range(1_000)}):
        error = error_of(await client.post(CHAT, json={"messages": [USER], "tool_choice": value}))
        assert 20 < len(error["message"]) < 250


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "x"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": []},
        {"role": "user", "content": 5},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": "x", "name": 5},
        {"role": "assistant", "content": "x", "tool_calls": [{}]},
        {"role": "user", "content": "x", "color": "red"},
        "hello",
        None,
    ],
)
async def test_a_message_that_is_not_plain_text_is_refused(client, message):
    error_of(await client.post(CHAT, json={"messages": [message]}))


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1},
        {"temperature": 11},
        {"temperature": "warm"},
        {"temperature": True},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_k": -2},
        {"top_k": 10**300},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"presence_penalty": 3},
        {"frequency_penalty": -3},
        {"seed": 2**63},
        {"seed": 1.5},
        {"logit_bias": {"9" * 5_000: 1}},
        {"stop": [1]},
        {"stop": 1},
        {"stop": ["x"] * 17},
        {"n": 0},
        {"n": 129},
        {"max_tokens": 0},
        {"max_tokens": -2},
        {"max_tokens": 1025},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"top_logprobs": 1},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": 1},
        {"stream": "yes"},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"surprise": True}},
        {"prompt_cache_key": 5},
        {"metadata": {"a": 1}},
        {"messages": []},
        {"messages": "hello"},
    ],
)
async def test_a_value_out_of_range_is_refused_with_the_name_of_its_field(client, fields):
    error = error_of(await client.post(CHAT, json={"messages": [USER], **fields}))
    assert error["param"].split(".")[0].split("[")[0] in fields


@pytest.mark.parametrize("prompt", [None, [], [[]], [1, "a"], [[1], 2], [-1], [True], [2**31], 5])
async def test_a_prompt_of_another_form_is_refused(client, prompt):
    error = error_of(await client.post(COMPLETIONS, json={"prompt": prompt}))
    assert error["param"] in ("prompt", "prompt[0]", "prompt[1]")


@pytest.mark.parametrize("fields", [{}, {"echo": True, "n": 2}])
async def test_max_tokens_0_only_scores_or_echoes_one_prompt(client, fields):
    error_of(await client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 0, **fields}))


async def test_more_replies_than_one_request_may_ask_for_are_refused(client):
    body = {"prompt": ["a"] * 65, "n": 2}
    assert "130" in error_of(await client.post(COMPLETIONS, json=body))["message"]


@pytest.mark.parametrize(
    ("where", "body", "words"),
    [
        (CHAT, {"messages": [None] * 20_001}, "messages has 20001 entries; "),
        (COMPLETIONS, {"prompt": [None] * 129}, "prompt has 129 entries"),
        (COMPLETIONS, {"prompt": [[1]] * 20_000}, "prompt has 20000 entries"),
    ],
)
async def test_a_list_too_long_is_refused_before_its_entries_are_looked_at(
    client, where, body, words
):
    """Hundreds of thousands of messages, each of them checked, held up every other reply."""
    error = error_of(await client.post(where, content=json.dumps(body), headers=JSON))
    assert error["message"].startswith(words)
    assert error["param"] in body


@pytest.mark.parametrize(("num_bytes", "is_elsewhere"), [(100, False), (2**20, True)])
async def test_a_large_body_is_read_in_another_thread(
    service, monkeypatch, num_bytes, is_elsewhere
):
    threads = []

    def parse_body(kind, data):
        threads.append(threading.get_ident())
        return schemas.parse_body(kind, data)

    monkeypatch.setattr(reading, "parse_body", parse_body)
    async with in_process(create_api(service)) as client:
        answer = await client.post(COMPLETIONS, json={"prompt": "x" * num_bytes})
    assert answer.status_code == 200
    assert [thread != threading.get_ident() for thread in threads] == [is_elsewhere]


async def test_a_large_body_s_error_is_a_sentence_too(service):
    async with in_process(create_api(service)) as client:
        body = {"prompt": "x" * 2**20, "temprature": 1}
        assert error_of(await client.post(COMPLETIONS, json=body))["param"] == "temprature"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"messages": "\xff"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}], "\\udfff": 1}',
        b'{"seed": 1' + b"0" * 5000 + b"}",
        b"[" * 50_000,
        b'{"messages":' * 10_000,
    ],
)
async def test_a_broken_body_is_refused_in_one_sentence(client, body):
    error_of(await client.post(CHAT, content=body, headers=JSON))


async def test_a_body_over_the_limit_is_refused_declared_or_not(client):
    async def undeclared():
        for _ in range(30):
            yield b"x" * 10_000

    for content in (b"x" * 200_001, undeclared()):
        error = error_of(await client.post(CHAT, content=content, headers=JSON), 413)
        assert "200000" in error["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_does_not_say_it_is_json_is_refused(client, content_type):
    """A foreign web page may send these from its visitor's browser; JSON it may not."""
    body = json.dumps({"messages": [USER]}).encode()
    headers = {"content-type": content_type}
    assert error_of(await client.post(CHAT, content=body, headers=headers), 415)


async def test_a_model_that_is_not_served_is_not_found(client):
    error = error_of(await client.post(CHAT, json={"messages": [USER], "model": "gpt-4"}), 404)
    assert error["code"] == "model_not_found"
    assert "echo" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_event_is_a_status(client, stream):
    words = "w " * 20_001
    body = {"messages": [{"role": "user", "content": words}], "stream": stream}
    assert error_of(await client.post(CHAT, json=body))["code"] == "context_length_exceeded"


async def test_a_failure_in_mid_stream_is_an_event_and_the_end(client):
    body = {"messages": [{"role": "user", "content": "BREAK now"}], "stream": True}
    response = await client.post(CHAT, json=body)
    assert response.status_code == 200
    values = sse_values(response.text)
    assert values[-1]["error"]["code"] == "engine_failure"
    assert values[-2]["choices"][0]["delta"]["content"] == " said:"


async def test_a_failure_in_mid_reply_is_a_status_if_nothing_was_sent_yet(client, service):
    for n in (1, 2):
        body = {"messages": [{"role": "user", "content": "BREAK now"}], "n": n}
        assert error_of(await client.post(CHAT, json=body), 503)["type"] == "server_error"
    assert service.running == 0


async def test_a_model_that_is_loading_asks_to_come_back(client):
    async with in_process(create_api(EchoService())) as early:
        response = await early.post(CHAT, json={"messages": [USER]})
    assert error_of(response, 503)["code"] == "not_ready"
    assert int(response.headers["retry-after"]) > 0


class FullService(EchoService):
    """Has no room."""

    async def generate(self, request):
        raise Overloaded("every slot is taken and 64 requests wait; try again")
        yield


class BrokenService(EchoService):
    """Fails in a way nobody thought of, quoting the user."""

    async def generate(self, request):
        if request.sampling.seed == 1:
            yield (await anext(super().generate(request)))
        raise KeyError(request.prompt)


async def test_a_full_server_asks_to_come_back():
    service = FullService()
    await service.start()
    async with in_process(create_api(service)) as client:
        response = await client.post(CHAT, json={"messages": [USER]})
    assert error_of(response, 503)["code"] == "overloaded"
    assert int(response.headers["retry-after"]) > 0


async def test_an_unexpected_failure_is_logged_without_the_users_words(caplog):
    service = BrokenService()
    await service.start()
    body = {"messages": [{"role": "user", "content": "my secret"}]}
    with caplog.at_level(logging.ERROR):
        async with in_process(create_api(service)) as client:
            whole = await client.post(CHAT, json=body)
            streamed = await client.post(CHAT, json={**body, "stream": True, "seed": 1})
    assert "secret" not in error_of(whole, 500)["message"]
    assert sse_values(streamed.text)[-1]["error"]["code"] == "internal_error"
    assert "KeyError" in caplog.text and "secret" not in caplog.text


async def test_an_unknown_path_and_a_wrong_method_are_answered_in_json(client):
    assert error_of(await client.get("/v1/embeddings"), 404)["code"] == "not_found"
    assert error_of(await client.get("/v1"), 404)
    response = await client.get(CHAT)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    for path in ("/health", "/metrics"):
        response = await client.post(path)
        assert error_of(response, 405)["code"] == "method_not_allowed"
        assert response.headers["allow"] == "GET, HEAD"


async def test_paths_outside_v1_are_left_to_whoever_is_mounted_there(service):
    app = create_api(service)

    @app.get("/")
    async def page() -> str:
        return "the page"

    async with in_process(app) as client:
        assert (await client.get("/")).json() == "the page"
        assert "error" not in (await client.get("/elsewhere")).json()
