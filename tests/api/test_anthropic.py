"""Anthropic's Messages API: a chat in its shapes, whole and streamed, with functions."""

from __future__ import annotations

import json

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.protocol import Message
from tests.api.test_tools import text_of_call
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService

URL = "/v1/messages"
CLOCK = {"name": "clock", "input_schema": {"type": "object"}}
ARGUMENTS = '{"zone": "UTC", "n": [1]}'


@pytest.fixture
async def echo():
    service = EchoService()
    await service.start()
    return service


@pytest.fixture
async def http(echo):
    async with in_process(create_api(echo)) as http:
        yield http


def body(**fields):
    return {"model": "echo", "max_tokens": 50, "messages": [USER], **fields}


def events_of(text: str) -> list[dict]:
    events = [part.split("\n") for part in text.strip().split("\n\n")]
    values = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [lines[0] for lines in events] == [f"event: {value['type']}" for value in values]
    return values


async def test_a_message_is_answered(http, echo):
    answer = (await http.post(URL, json=body(system="Be brief.", stop_sequences=["x"]))).json()
    assert answer["content"] == [{"type": "text", "text": "You said: hello there"}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == (
        "message",
        "assistant",
        "end_turn",
    )
    assert answer["usage"]["input_tokens"] > 0 and answer["usage"]["output_tokens"] == 4
    request = echo.requests[-1]
    assert request.prompt[0] == Message("system", "Be brief.") and request.sampling.stop == ("x",)
    answer = (await http.post(URL, json=body(max_tokens=2))).json()
    assert answer["stop_reason"] == "max_tokens"


async def test_a_stream_has_the_named_events_of_one_block(http):
    events = events_of((await http.post(URL, json=body(stream=True))).text)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
    assert text == "You said: hello there"
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


def asked_for_a_call(**fields):
    text = f"SAY {text_of_call(arguments=ARGUMENTS)}"
    return body(messages=[{"role": "user", "content": text}], tools=[CLOCK], **fields)


async def test_a_call_is_a_block_of_its_own(http):
    answer = (await http.post(URL, json=asked_for_a_call())).json()
    (block,) = answer["content"]
    assert (block["type"], block["name"], block["input"]) == (
        "tool_use",
        "clock",
        json.loads(ARGUMENTS),
    )
    assert answer["stop_reason"] == "tool_use"
    events = events_of((await http.post(URL, json=asked_for_a_call(stream=True))).text)
    parts = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(parts) == ARGUMENTS and events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_calls_and_results_come_back_as_the_model_wrote_and_reads_them(http, echo):
    call = {"type": "tool_use", "id": "a", "name": "clock", "input": json.loads(ARGUMENTS)}
    messages = [
        USER,
        {"role": "assistant", "content": [{"type": "text", "text": "Well."}, call]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [{"type": "text", "text": "noon"}],
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    assert (await http.post(URL, json=body(messages=messages))).status_code == 200
    assert echo.requests[-1].prompt[1:] == (
        Message("assistant", "Well.\n" + text_of_call(arguments=ARGUMENTS)),
        Message("user", "<tool_response>\nnoon\n</tool_response>"),
        Message("user", "And now?"),
    )


@pytest.mark.parametrize(
    "choice,is_form,named",
    [
        ({"type": "auto"}, True, True),
        ({"type": "any", "disable_parallel_tool_use": True}, True, True),
        ({"type": "tool", "name": "clock"}, True, True),
        ({"type": "none"}, False, False),
    ],
)
async def test_which_functions_may_be_called_is_chosen_as_in_a_chat(
    http, echo, choice, is_form, named
):
    answer = await http.post(URL, json=body(tools=[CLOCK], tool_choice=choice))
    assert answer.status_code == 200, answer.text
    assert (echo.requests[-1].form is not None) == is_form
    assert (len(echo.requests[-1].prompt) == 2) == named


@pytest.mark.parametrize(
    "fields,param",
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": "hello"}, "messages"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking"),
        ({"tools": [{"type": "web_search_20250305"}]}, "tools[0]"),
        ({"tools": [CLOCK], "tool_choice": {"type": "perhaps"}}, "tool_choice"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].type",
        ),
        ({"color": "red"}, "color"),
        ({"temperature": 11}, "temperature"),
    ],
)
async def test_what_is_not_there_is_refused_by_its_name(http, fields, param):
    answer = await http.post(URL, json=body(**fields))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_a_key_may_come_in_anthropics_header(echo):
    async with in_process(create_api(echo, api_keys=("secret",))) as http:
        assert (await http.post(URL, json=body())).status_code == 401
        right = await http.post(URL, json=body(), headers={"x-api-key": "secret"})
        wrong = await http.post(URL, json=body(), headers={"x-api-key": "other"})
    assert (right.status_code, wrong.status_code) == (200, 401)


async def test_a_failure_in_mid_reply_is_the_streams_last_event(http):
    messages = [{"role": "user", "content": "BREAK it"}]
    events = events_of((await http.post(URL, json=body(messages=messages, stream=True))).text)
    assert events[-1]["type"] == "error" and "device failed" in events[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 1),
        ("prompt_logprobs", 0),
        ("return_token_ids", True),
        ("echo", True),
        ("stream_options", {"include_usage": True}),
    ],
)
async def test_what_this_shape_has_no_place_for_is_refused_not_mixed_into_it(http, field, value):
    answer = await http.post(URL, json=body(**{field: value}))
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == field and field in error["message"]
    for neutral in (None, 1 if field == "n" else None):
        assert (await http.post(URL, json=body(**{field: neutral}))).status_code == 200
