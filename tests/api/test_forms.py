"""Structured output over HTTP: every client's way to ask for it, and what comes back."""

from __future__ import annotations

import asyncio
import json
import re
import time
from enum import Enum

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.protocol import ChoiceForm, GrammarForm, JsonForm, RegexForm
from tests.support.api_fixtures import USER, in_process, openai_client, sse_values
from tests.support.echo_service import ready_echo
from tests.support.local_api import local_url

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
STRICT, LENIENT = JsonForm(json.dumps(SCHEMA)), JsonForm(json.dumps(SCHEMA), is_lenient=True)
ANY_OBJECT = {"type": "object"}


def openais(**options):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", **options}}}


ASKED = {
    "json_schema, strict": (openais(schema=SCHEMA, strict=True), STRICT),
    "json_schema": (openais(schema=SCHEMA), LENIENT),
    "json_schema without a schema": (openais(strict=True), JsonForm("{}")),
    "json_object": (
        {"response_format": {"type": "json_object"}},
        JsonForm(json.dumps(ANY_OBJECT), is_lenient=True),
    ),
    "json_object with a schema": (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        LENIENT,
    ),
    "TGI's json": ({"response_format": {"type": "json", "value": SCHEMA}}, LENIENT),
    "TGI's regex": ({"response_format": {"type": "regex", "value": "a+"}}, RegexForm("a+")),
    "json": ({"structured_outputs": {"json": SCHEMA}}, STRICT),
    "json as a text": ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, STRICT),
    "any object": (
        {"structured_outputs": {"json_object": True}},
        JsonForm(json.dumps(ANY_OBJECT)),
    ),
    "regex": ({"structured_outputs": {"regex": "a+", "json": None}}, RegexForm("a+")),
    "choice": ({"structured_outputs": {"choice": ["a", "b"]}}, ChoiceForm(("a", "b"))),
    "grammar": ({"structured_outputs": {"grammar": 'start: "a"'}}, GrammarForm('start: "a"')),
    "guided_json": ({"guided_json": SCHEMA}, STRICT),
    "guided_regex": ({"guided_regex": "a+"}, RegexForm("a+")),
    "guided_choice": ({"guided_choice": ["a"]}, ChoiceForm(("a",))),
    "guided_grammar": ({"guided_grammar": 'start: "a"'}, GrammarForm('start: "a"')),
    "llama.cpp's json_schema": ({"json_schema": SCHEMA}, STRICT),
    "llama.cpp's grammar": ({"grammar": 'root ::= "a"'}, GrammarForm('root ::= "a"')),
    "nothing": ({"response_format": {"type": "text"}, "structured_outputs": {}}, None),
}


@pytest_asyncio.fixture(loop_scope="module")
async def echo():
    return await ready_echo()


@pytest.mark.parametrize("fields,form", ASKED.values(), ids=ASKED)
async def test_every_way_to_ask_means_one_form_at_both_endpoints(echo, fields, form):
    async with in_process(create_api(echo)) as http:
        for path, prompt in ((CHAT, {"messages": [USER]}), (COMPLETIONS, {"prompt": "a"})):
            answer = await http.post(path, json={**prompt, **fields, "n": 2})
            assert answer.status_code == 200, answer.text
    assert [request.form for request in echo.requests] == [form] * 4


REFUSED = {
    "an unknown type": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "no object": ({"response_format": "json"}, "response_format"),
    "no schema": (openais(schema=[1]), "response_format.json_schema.schema"),
    "no json_schema": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
    "an odd strictness": (openais(strict="yes"), "response_format.json_schema.strict"),
    "two forms": ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    "two fields": (
        {"response_format": {"type": "json_object"}, "guided_regex": "a"},
        "structured_outputs",
    ),
    "an unknown form": ({"structured_outputs": {"yaml": "a"}}, "structured_outputs.yaml"),
    "structural tags": (
        {"structured_outputs": {"structural_tag": "{}"}},
        "structured_outputs.structural_tag",
    ),
    "choices of numbers": ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice"),
    "a pattern of numbers": ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
    "a broken text": ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    "no end of text": ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
}


@pytest.mark.parametrize("fields,param", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_form_is_refused_by_its_name(echo, fields, param):
    async with in_process(create_api(echo)) as http:
        answer = await http.post(CHAT, json={"messages": [USER], **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert "\n" not in answer.json()["error"]["message"]


# ---- The bundled model, whose replies say little and have any form ----


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url():
    async with local_url(max_running=4) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def client(url):
    async with openai_client(url) as client:
        yield client


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Mood
    friends: list[str] = Field(max_length=2)
    note: str | None


async def test_openais_parse_returns_the_model_of_the_caller(client):
    answer = await client.chat.completions.parse(
        model="nano", messages=[USER], response_format=Person, seed=1, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    assert answer.choices[0].finish_reason == "stop"


async def test_openais_stream_helper_parses_at_the_end(client):
    async with client.chat.completions.stream(
        model="nano", messages=[USER], response_format=Person, seed=2, max_tokens=300
    ) as stream:
        answer = await stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Person)


async def test_seeds_number_of_replies_and_log_probabilities_work_as_without_a_form(client):
    options = {
        "model": "nano",
        "messages": [USER],
        "n": 3,
        "seed": 5,
        "temperature": 1.2,
        "logprobs": True,
        "top_logprobs": 2,
        "extra_body": {"structured_outputs": {"regex": "[A-Z][a-z]{2,8}, [0-9]{2}"}},
    }
    answers = [await client.chat.completions.create(**options) for _ in range(2)]
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1
    for choice in answers[0].choices:
        assert re.fullmatch("[A-Z][a-z]{2,8}, [0-9]{2}", choice.message.content)
        said = "".join(token.token for token in choice.logprobs.content)
        assert said.startswith(choice.message.content)


async def test_a_completion_is_one_of_the_choices_and_a_stop_string_still_ends_it(client):
    extra = {"structured_outputs": {"choice": ["Lisbon", "Porto"]}}
    answer = await client.completions.create(model="nano", prompt="I live in", extra_body=extra)
    assert answer.choices[0].text in ("Lisbon", "Porto")
    extra = {"structured_outputs": {"choice": ["a, b", "c, d"]}}
    answer = await client.completions.create(
        model="nano", prompt="I live in", stop=[","], extra_body=extra
    )
    assert answer.choices[0].text in ("a", "c")


async def test_a_limit_in_the_middle_says_so(client):
    answer = await client.chat.completions.create(
        model="nano", messages=[USER], response_format={"type": "json_object"}, max_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content.startswith("{")


async def test_a_begun_reply_is_continued_in_the_form(client):
    begun = {"role": "assistant", "content": "My answer: "}
    answer = await client.chat.completions.create(
        model="nano",
        messages=[USER, begun],
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    )
    assert answer.choices[0].message.content in ("yes", "no")


HOSTILE = {
    "deep": {"json": "[" * 5_000 + "]" * 5_000},
    "wide": {"json": {"properties": {f"k{i}": {"type": "string"} for i in range(1_500)}}},
    "many branches": {
        "json": {
            "anyOf": [{"properties": {f"k{i}": {"pattern": f"^a.*b{{{i}}}$"}}} for i in range(400)]
        }
    },
    "nested repeats": {"regex": "((a{1,900}){1,900}){1,900}"},
    "a pattern without end": {"regex": "(a|b)*a(a|b){9000}" * 20},
    "a wild grammar": {"grammar": "start: start start start | start start | " + '"a" ' * 20_000},
    "a grammar of parentheses": {"grammar": "root ::= " + "(" * 4_000},
}


@pytest.mark.parametrize("outputs", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_form_is_answered_while_others_are_served(url, outputs):
    """Refused, or written by its rules; never a crash, and the event loop goes on. What other
    processes on the same cores take is not counted.
    """
    body = {"messages": [USER], "structured_outputs": outputs, "max_tokens": 4}
    longest, is_done = 0.0, False

    async def watch():
        nonlocal longest
        while not is_done:
            began, worked = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.01)
            gap = min(time.perf_counter() - began, time.process_time() - worked)
            longest = max(longest, gap)

    watching = asyncio.create_task(watch())
    async with openai_client(url) as client:
        answer = await client._client.post(f"{url}/chat/completions", json=body)
    is_done = True
    await watching
    assert answer.status_code in (200, 400), answer.text
    assert longest < 2.0  # on a busy machine; a form that stops the loop takes several seconds


async def test_a_stream_of_json_is_the_same_text_as_the_whole_answer(url):
    body = {
        "messages": [USER],
        "seed": 3,
        "max_tokens": 200,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"schema": Person.model_json_schema()},
        },
    }
    async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
        whole = (await client._client.post(f"{url}/chat/completions", json=body)).json()
        stream = await client._client.post(f"{url}/chat/completions", json={**body, "stream": True})
    chunks = [v["choices"][0]["delta"] for v in sse_values(stream.text) if v != "[DONE]"]
    text = "".join(delta.get("content", "") for delta in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    Person.model_validate_json(text)
