"""Functions that a reply may call: the client's loop, and the form of a call whatever the model."""

from __future__ import annotations

import json

import openai
import pytest
import pytest_asyncio

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.api.tool_calls import CallReader, joined_calls
from falcon_mamba_app.protocol import Message
from tests.support.api_fixtures import USER, in_process, openai_client, sse_values
from tests.support.echo_service import ready_echo
from tests.support.local_api import local_url

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Lisbon", "Porto"]}, "days": {"$ref": "#/$defs/days"}},
            "required": ["city", "days"],
            "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
        },
        "strict": True,
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]


def call(name="clock", arguments="{}", number=0):
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def text_of_call(name="clock", arguments="{}"):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


# ---- What the service is asked for ----


@pytest_asyncio.fixture(loop_scope="module")
async def echo():
    return await ready_echo()


async def asked(echo, **fields):
    async with in_process(create_api(echo)) as http:
        answer = await http.post(CHAT, json={"messages": [USER], **fields})
    assert answer.status_code == 200, answer.text
    return echo.requests[-1]


async def test_the_model_is_told_of_the_functions_at_the_end_of_the_system_message(echo):
    request = await asked(echo, tools=TOOLS)
    system, user = request.prompt
    assert system.role == "system" and user == Message("user", USER["content"])
    for words in ("get_weather", "The weather of a city.", "clock", "<tool_call>"):
        assert words in system.content
    messages = [{"role": "developer", "content": "Be brief."}, USER]
    request = await asked(echo, tools=TOOLS, messages=messages)
    assert [m.role for m in request.prompt] == ["system", "user"]
    assert request.prompt[0].content == f"Be brief.\n\n{system.content}"


async def test_which_functions_may_be_called_changes_the_form_and_never_the_prompt(echo):
    choices = ["auto", "required", {"type": "function", "function": {"name": "clock"}}]
    requests = [await asked(echo, tools=TOOLS, tool_choice=choice) for choice in choices]
    assert len({request.prompt for request in requests}) == 1
    assert len({request.form for request in requests}) == 3
    assert (await asked(echo, tools=TOOLS)).form == requests[0].form
    assert "get_weather" not in requests[2].form.grammar


@pytest.mark.parametrize("fields", [{"tools": TOOLS, "tool_choice": "none"}, {"tools": []}])
async def test_without_functions_to_call_nothing_is_told_and_nothing_is_held_to(echo, fields):
    request = await asked(echo, **fields, parallel_tool_calls=True)
    assert request.form is None and len(request.prompt) == 1


async def test_calls_and_results_come_back_as_the_model_wrote_and_reads_them(echo):
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call(number=1), call(number=2)]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "Once more.", "tool_calls": [call(arguments="")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "two", "name": "clock"},
    ]
    request = await asked(echo, messages=messages)
    assert request.prompt[1:] == (
        Message("assistant", f"{text_of_call()}\n{text_of_call()}"),
        Message(
            "user",
            "<tool_response>\nnoon\n</tool_response>\n<tool_response>\none\n</tool_response>",
        ),
        Message("assistant", f"Once more.\n{text_of_call()}"),
        Message("user", "<tool_response>\ntwo\n</tool_response>"),
    )


REFUSED = {
    "another kind": ({"tools": [{"type": "web_search"}]}, "tools"),
    "no function": ({"tools": [{"type": "function"}]}, "tools[0].function"),
    "no name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    "an odd name": (
        {"tools": [{"type": "function", "function": {"name": 'a"b'}}]},
        "tools[0].function.name",
    ),
    "a name twice": ({"tools": [CLOCK, CLOCK]}, "tools"),
    "arguments of a list": (
        {
            "tools": [
                {"type": "function", "function": {"name": "a", "parameters": {"type": "array"}}}
            ]
        },
        "tools[0].function.parameters",
    ),
    "too many": ({"tools": [CLOCK] * 129}, "tools"),
    "a choice without tools": ({"tool_choice": "required"}, "tool_choice"),
    "an unknown choice": ({"tools": TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
    "an unknown function": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        "tool_choice",
    ),
    "a pattern beside tools": ({"tools": TOOLS, "guided_regex": "a"}, "structured_outputs"),
    "calls without results": (
        {"messages": [USER, {"role": "assistant", "tool_calls": [call()]}]},
        "messages[1].tool_calls",
    ),
}


@pytest.mark.parametrize("fields,param", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_called_is_refused_by_its_name(echo, fields, param):
    async with in_process(create_api(echo)) as http:
        answer = await http.post(CHAT, json={"messages": [USER], **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(answer.json()["error"]["message"]) < 300


# ---- How a reply is read ----


ARGUMENTS = '{"a": "}\\n</tool_call>", "b": [{"c": "\\"{"}], "d": {}}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
async def test_calls_are_read_from_pieces_of_any_size(size):
    text = f"{text_of_call(arguments=ARGUMENTS)}\n{text_of_call('get_weather', '{}')}"
    reader, deltas = CallReader(), []
    for start in range(0, len(text), size):
        deltas += reader.feed(text[start : start + size])
    deltas += reader.flush()
    calls = [c["function"] for c in joined_calls(deltas)]
    assert calls == [
        {"name": "clock", "arguments": ARGUMENTS},
        {"name": "get_weather", "arguments": "{}"},
    ]
    assert json.loads(ARGUMENTS) and reader.num_calls == 2
    assert not any("content" in delta for delta in deltas)


@pytest.mark.parametrize("text", ["Hello.", "<tool", "<b>", "a <tool_call>\n", "", "<tool_cal l>"])
@pytest.mark.parametrize("size", [1, 4, 1_000])
async def test_a_text_is_told_whole_even_where_it_begins_like_a_call(text, size):
    reader, deltas = CallReader(), []
    for start in range(0, len(text), size):
        deltas += reader.feed(text[start : start + size])
    deltas += reader.flush()
    assert "".join(delta["content"] for delta in deltas) == text and reader.num_calls == 0


async def test_a_stream_tells_the_calls_name_first_then_its_arguments(echo):
    body = {
        "messages": [{"role": "user", "content": f"SAY {text_of_call(arguments=ARGUMENTS)}"}],
        "tools": [CLOCK],
        "stream": True,
    }
    async with in_process(create_api(echo)) as http:
        values = sse_values((await http.post(CHAT, json=body)).text)[:-1]
    choices = [value["choices"][0] for value in values]
    assert choices[0]["delta"] == {"role": "assistant", "content": None}
    first = choices[1]["delta"]["tool_calls"][0]
    assert first["function"] == {"name": "clock", "arguments": ""} and first["id"][:5] == "call_"
    assert joined_calls([choice["delta"] for choice in choices])[0]["function"]["arguments"]
    assert choices[-1]["finish_reason"] == "tool_calls"


# ---- The bundled model: it chooses badly, and the form is always right ----


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url():
    async with local_url(max_running=4) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def client(url):
    async with openai_client(url) as client:
        yield client


def is_a_call(found) -> bool:
    arguments = json.loads(found.function.arguments)
    if found.function.name == "clock":
        return arguments == {}
    return arguments["city"] in ("Lisbon", "Porto") and 1 <= arguments["days"] <= 9


async def test_openais_client_runs_a_loop_of_two_steps(client):
    messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    options = {"model": "nano", "tools": TOOLS, "seed": 3, "max_tokens": 300}
    options["prompt_cache_key"] = "a loop"
    answer = await client.chat.completions.create(
        messages=messages, tool_choice="required", **options
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert all(map(is_a_call, choice.message.tool_calls))
    messages.append(choice.message)
    for each in choice.message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": each.id, "content": "21 degrees"})
    options["max_tokens"] = 20
    second = await client.chat.completions.create(messages=messages, **options)
    assert second.choices[0].message.content or second.choices[0].message.tool_calls
    # The calls came back with the ids that the model wrote, so nothing of them is read again.
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= answer.usage.prompt_tokens + answer.usage.completion_tokens - 2


@pytest.mark.parametrize("seed", range(2))
async def test_a_named_function_is_called_once_and_its_stream_is_assembled(client, seed):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    async with client.chat.completions.stream(
        model="nano", messages=[USER], tools=TOOLS, tool_choice=choice, seed=seed, temperature=1.5
    ) as stream:
        answer = await stream.get_final_completion()
    (found,) = answer.choices[0].message.tool_calls
    assert found.function.name == "get_weather" and is_a_call(found)


async def test_without_parallel_calls_there_is_one_and_a_limit_in_the_middle_says_so(client):
    options = {"model": "nano", "messages": [USER], "tools": TOOLS, "tool_choice": "required"}
    answer = await client.chat.completions.create(
        **options, parallel_tool_calls=False, temperature=1.5, seed=1
    )
    assert len(answer.choices[0].message.tool_calls) == 1
    answer = await client.chat.completions.create(**options, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"


async def test_a_schema_that_cannot_be_held_to_is_refused_as_the_tools(client):
    parameters = {"properties": {"a": {"type": "strnig"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    with pytest.raises(openai.BadRequestError, match="strnig") as refused:
        await client.chat.completions.create(model="nano", messages=[USER], tools=tools)
    assert refused.value.param == "tools"


async def test_the_models_tell_that_tools_are_prompted(client):
    model = await client.models.retrieve("nano")
    assert "not trained" in model.falcon_mamba["tools"]
