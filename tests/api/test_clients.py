"""The clients people have: OpenAI's own library, asynchronous and not, and curl."""

from __future__ import annotations

import asyncio
import json
import shutil

import openai
import pytest

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import USER, on_loopback, sse_values, until

KEY = "a-key"


@pytest.fixture
async def url(service):
    async with on_loopback(create_api(service, api_keys=(KEY,))) as url:
        yield f"{url}/v1"


@pytest.fixture
async def client(url):
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


async def test_openai_chats(client):
    answer = await client.chat.completions.create(
        model="echo",
        messages=[USER],
        logprobs=True,
        top_logprobs=1,
        n=2,
        extra_body={"top_k": 5, "min_p": 0.1},
    )
    assert [choice.message.content for choice in answer.choices] == ["You said: hello there"] * 2
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "alt0"
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_openai_streams_a_chat(client):
    stream = await client.chat.completions.create(
        model="echo", messages=[USER], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "You said: hello there"
    assert chunks[-1].usage.completion_tokens == 4


async def test_openais_stream_helper_assembles_the_reply(client):
    async with client.chat.completions.stream(model="echo", messages=[USER]) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "You said: hello there"


async def test_openai_completes(client):
    answer = await client.completions.create(
        model="echo", prompt=["a b", "c"], echo=True, logprobs=1, max_tokens=1
    )
    assert [choice.text for choice in answer.choices] == ["a band", "cand"]
    assert answer.choices[0].logprobs.token_logprobs == [None, -0.5, -0.5]
    stream = await client.completions.create(model="echo", prompt=[1, 2], stream=True)
    assert "".join([c.choices[0].text async for c in stream]) == "and so on."


async def test_openai_lists_models(client):
    assert [model.id async for model in client.models.list()] == ["echo"]
    assert (await client.models.retrieve("echo")).id == "echo"


async def test_openais_plain_client_works_too(url):
    def ask() -> str:
        with openai.OpenAI(base_url=url, api_key=KEY) as client:
            stream = client.chat.completions.create(model="echo", messages=[USER], stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == "You said: hello there"


async def test_openai_raises_its_own_errors(client, url):
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await create(model="echo", messages=[USER], temperature=11)
    with pytest.raises(openai.BadRequestError) as refused:
        await create(model="echo", messages=[USER], tools=[{"type": "web_search"}])
    assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        await create(model="other", messages=[USER])
    with pytest.raises(openai.APIError, match="device failed"):
        broken = [{"role": "user", "content": "BREAK it"}]
        async for _ in await create(model="echo", messages=broken, stream=True):
            pass
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()


async def test_closing_openais_stream_stops_the_work(client, service):
    slow = [{"role": "user", "content": "LONG SLOW"}]
    stream = await client.chat.completions.create(model="echo", messages=slow, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: service.running == 0)


async def curl(*arguments: str) -> asyncio.subprocess.Process:
    program = shutil.which("curl")
    assert program, "this test needs curl, which every Debian has: apt-get install curl"
    return await asyncio.create_subprocess_exec(
        program, "-sS", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE
    )


def post(url: str, body: dict) -> tuple[str, ...]:
    headers = ("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json")
    return (f"{url}/chat/completions", *headers, "-d", json.dumps(body))


async def test_curl_gets_an_answer(url):
    process = await curl(*post(url, {"messages": [USER]}))
    answer = json.loads((await process.communicate())[0])
    assert answer["choices"][0]["message"]["content"] == "You said: hello there"


async def test_curl_streams_word_by_word_and_may_leave(url, service):
    slow = {"messages": [{"role": "user", "content": "LONG SLOW"}], "stream": True}
    process = await curl("-N", *post(url, slow))
    received = (await process.stdout.readuntil(b'" word"')).decode()
    assert service.running == 1
    process.terminate()
    await process.wait()
    assert sse_values(received.rpartition("\n\n")[0])[0]["object"] == "chat.completion.chunk"
    await until(lambda: service.running == 0)
