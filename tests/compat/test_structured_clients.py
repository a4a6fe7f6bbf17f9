"""Structured output and tools as other programs' clients ask for them, on the bundled model.

The clients of requirements-dev.txt run everywhere. The others are too heavy for that, or need
another version of a package that the tests have, and run where they are installed: pip's
langchain-openai, instructor, llama-index-llms-openai-like, pydantic-ai-slim[openai],
openai-agents, smolagents[openai]; npm's ai@6, @ai-sdk/openai-compatible@2 and zod, in the folder
AI_SDK_FOLDER.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import bounded, on_loopback
from tests.support.services import make_local_service

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # Other people's packages warn of their own affairs.
    pytest.mark.filterwarnings("ignore"),
]
QUESTION = "Who lives here?"


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["good", "bad"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url():
    service = make_local_service(max_running=4)
    await service.start()
    async with on_loopback(bounded(create_api(service))) as url:
        yield url
    await service.close()


async def elsewhere(work: Callable[[], Any]) -> Any:
    """The result of a blocking client's work: the server answers on this thread."""
    return await asyncio.to_thread(work)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_langchain_returns_the_callers_model(url, method):
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    model = chat(base_url=f"{url}/v1", api_key="k", model="nano", max_tokens=300, seed=1)
    if method == "json_mode":
        schema = {"response_format": {"type": "json_object", "schema": Person.model_json_schema()}}
        structured = model.bind(**schema)
        answer = await elsewhere(lambda: structured.invoke(QUESTION))
        Person.model_validate_json(answer.content)
        return
    structured = model.with_structured_output(Person, method=method)
    assert isinstance(await elsewhere(lambda: structured.invoke(QUESTION)), Person)


async def test_langchain_runs_a_loop_of_two_steps(url):
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    from langchain_core.messages import HumanMessage, ToolMessage

    model = chat(base_url=f"{url}/v1", api_key="k", model="nano", max_tokens=300, seed=1)
    first = await elsewhere(lambda: model.bind_tools([Person], tool_choice="any").invoke(QUESTION))
    assert first.tool_calls
    results = [ToolMessage("known", tool_call_id=call["id"]) for call in first.tool_calls]
    messages = [HumanMessage(QUESTION), first, *results]
    second = await elsewhere(lambda: model.bind_tools([Person]).invoke(messages, max_tokens=20))
    assert second.content or second.tool_calls


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
async def test_instructor_returns_the_callers_model(url, mode):
    instructor = pytest.importorskip("instructor")
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0),
        mode=getattr(instructor.Mode, mode),
    )

    def ask() -> Any:
        return client.chat.completions.create(
            model="nano",
            response_model=Person,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=300,
            seed=1,
            max_retries=0,
            # Its JSON mode says the schema in words only; a form holds the reply to it.
            extra_body=(
                {
                    "structured_outputs": {"json": Person.model_json_schema()},
                    "response_format": None,
                }
                if mode == "JSON"
                else None
            ),
        )

    assert isinstance(await elsewhere(ask), Person)


async def test_anthropics_client_chats_streams_and_calls(url):
    anthropic = pytest.importorskip("anthropic")
    message = {"role": "user", "content": QUESTION}
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        options = {"model": "nano", "max_tokens": 40, "messages": [message]}
        answer = await client.messages.create(**options)
        assert answer.content[0].text and answer.usage.output_tokens
        async with client.messages.stream(**options) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            assert (await stream.get_final_message()).content[0].text == text
        tool = {"name": "person", "input_schema": Person.model_json_schema()}
        options |= {"max_tokens": 300, "tools": [tool], "tool_choice": {"type": "any"}}
        answer = await client.messages.create(**options)
        assert answer.stop_reason == "tool_use"
        assert all(Person.model_validate(block.input) for block in answer.content)


async def test_openais_helpers_parse_into_the_callers_model(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
    options = {"model": "nano", "messages": [{"role": "user", "content": QUESTION}], "seed": 1}

    def chat() -> Any:
        return client.chat.completions.parse(**options, response_format=Person, max_tokens=300)

    def response() -> Any:
        return client.responses.parse(
            model="nano", input=QUESTION, text_format=Person, max_output_tokens=300
        )

    assert isinstance((await elsewhere(chat)).choices[0].message.parsed, Person)
    assert isinstance((await elsewhere(response)).output_parsed, Person)


async def test_llama_index_predicts_the_callers_model(url):
    llms = pytest.importorskip("llama_index.llms.openai_like")
    from llama_index.core.prompts import PromptTemplate

    llm = llms.OpenAILike(
        model="nano",
        api_base=f"{url}/v1",
        api_key="k",
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        max_tokens=300,
        max_retries=0,
    )
    asked = PromptTemplate("{question}")
    answer = await elsewhere(lambda: llm.structured_predict(Person, asked, question=QUESTION))
    assert isinstance(answer, Person)
    assert (await elsewhere(lambda: llm.complete(QUESTION, max_tokens=8))).text


async def test_llm_answers_by_a_schema(url, tmp_path, monkeypatch):
    """As `llm prompt --schema` does."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    pytest.importorskip("llm")
    from llm.default_plugins.openai_models import Chat

    model = Chat("nano", model_name="nano", api_base=f"{url}/v1", supports_schema=True)
    model.key = "k"
    answer = await elsewhere(
        lambda: model.prompt(QUESTION, schema=Person, stream=False, max_tokens=300).text()
    )
    assert isinstance(Person.model_validate_json(answer), Person)


async def test_pydantic_ai_returns_the_callers_model_and_runs_a_tool(url):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("nano", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="k"))
    limits = {"max_tokens": 300, "seed": 1}
    agent = pydantic_ai.Agent(model, output_type=Person, model_settings=limits)
    assert isinstance((await agent.run(QUESTION)).output, Person)
    agent = pydantic_ai.Agent(model, output_type=[Person, str], model_settings=limits)

    @agent.tool_plain
    def who_lives_here() -> str:
        """Who lives here."""
        return "Ada lives here."

    # What the model chooses is its own affair; whatever it is has the right form.
    limit = pydantic_ai.UsageLimits(request_limit=6)
    result = await agent.run(QUESTION, usage_limits=limit)
    assert isinstance(result.output, Person | str)


async def test_openai_agents_run_a_loop_of_two_steps(url):
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    called = []

    @agents.function_tool
    def who_lives_here() -> str:
        """Who lives here."""
        called.append(True)
        return "Ada lives here."

    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
    for kind in (agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel):
        called.clear()
        is_chat = kind is agents.OpenAIChatCompletionsModel
        settings = agents.ModelSettings(max_tokens=60, tool_choice="required" if is_chat else None)
        agent = agents.Agent(
            name="porter",
            instructions="You know the house.",
            tools=[who_lives_here] if is_chat else [],
            model=kind(model="nano", openai_client=client),
            model_settings=settings,
        )
        result = await agents.Runner.run(agent, QUESTION, max_turns=3)
        assert result.final_output is not None
        assert bool(called) is is_chat
    await client.close()


async def test_smolagents_run_a_loop_of_two_steps(url):
    smolagents = pytest.importorskip("smolagents")
    called = []

    @smolagents.tool
    def who_lives_here() -> str:
        """Who lives here."""
        called.append(True)
        return "Ada lives here."

    model = smolagents.OpenAIModel(
        model_id="nano", api_base=f"{url}/v1", api_key="k", max_tokens=120, seed=1
    )
    agent = smolagents.ToolCallingAgent(
        tools=[who_lives_here], model=model, max_steps=2, verbosity_level=0
    )
    result = await elsewhere(lambda: agent.run(QUESTION))
    steps = [s for s in agent.memory.steps if isinstance(s, smolagents.ActionStep)]
    assert result is not None and len(steps) >= 1
    assert all(step.tool_calls for step in steps if step.error is None)


async def test_the_ai_sdk_generates_an_object_a_stream_and_a_call(url):
    folder = os.environ.get("AI_SDK_FOLDER")
    node = shutil.which("node")
    if folder is None or node is None:
        pytest.skip("needs node, and the folder AI_SDK_FOLDER with the npm packages")
    script = str(Path(__file__).with_name("ai_sdk.mjs"))
    command = [node, script, url]
    ran = await elsewhere(
        lambda: subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    Person.model_validate(told["object"])
    assert told["text"] and told["usage"]["outputTokens"]
    assert (told["numCalled"], told["numSteps"]) == (1, 2)
