"""Each limit over HTTP: the status, the sentence, and when to come back."""

from __future__ import annotations

import asyncio
import json
import resource

import httpx
import openai
import pytest

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.middleware.connections import SPARE_FILES, Connections, allow_files_for
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import ELSEWHERE, Page, serving, visiting, whole_app
from tests.ui.test_page import CONTROLS

LONG = {"messages": [{"role": "user", "content": "LONG SLOW"}], "stream": True}
SHORT = {"messages": [USER], "max_tokens": 2}
# On one's own machine there are no limits per visitor; a relayed server cannot tell who is there.
RELAYED = "--share"


def refused(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.text.count(words) == 1
    body = response.json()
    assert words in (body["error"]["message"] if "error" in body else body["detail"])
    assert 1 <= int(response.headers["retry-after"]) <= 3_600


async def test_replies_per_minute():
    async with visiting("--visitor-replies-per-minute", "2") as client:
        for _ in range(2):
            assert (await client.post("/v1/chat/completions", json=SHORT)).status_code == 200
        refused(await client.post("/v1/chat/completions", json=SHORT), 429, "2 replies were asked")
        prompt = {"prompt": "Once"}
        refused(await client.post("/v1/completions", json=prompt), 429, "2 replies were asked")
        refused(await client.get("/v1/sessions/a/state"), 429, "2 replies were asked")
        assert (await client.get("/v1/models")).status_code == 200


async def test_several_replies_to_one_request_count_each():
    async with visiting("--visitor-replies-per-minute", "4") as client:
        body = {**SHORT, "n": 4}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        refused(await client.post("/v1/chat/completions", json=SHORT), 429, "4 replies were asked")


async def test_many_replies_to_one_request_are_written_a_few_at_a_time():
    service = EchoService()
    most = 0

    async def generate(request, write=service.generate):
        nonlocal most
        async for event in write(request):
            most = max(most, service.running)
            yield event

    service.generate = generate
    async with visiting("--visitor-max-replies", "2", service=service) as client:
        response = await client.post("/v1/chat/completions", json={**SHORT, "n": 9})
    assert len(response.json()["choices"]) == 9
    assert most == 2


async def test_replies_at_the_same_time():
    async with (
        serving(RELAYED, "--visitor-max-replies", "1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        async with client.stream("POST", "/v1/chat/completions", json=LONG) as reply:
            await anext(reply.aiter_lines())
            answer = await client.post("/v1/chat/completions", json=SHORT)
            refused(answer, 429, "1 replies are being written for you")
        async with asyncio.timeout(60):  # the first reader's leaving takes a moment to arrive
            while (await client.post("/v1/chat/completions", json=SHORT)).status_code != 200:
                await asyncio.sleep(0.02)


async def test_sessions():
    async with visiting("--visitor-max-sessions", "2") as client:
        for key in "ab":
            body = {**SHORT, "prompt_cache_key": key}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        more = {**SHORT, "prompt_cache_key": "c"}
        refused(await client.post("/v1/chat/completions", json=more), 429, "2 conversations")
        brought = await client.put("/v1/sessions/c/state", content=b"echo:1")
        refused(brought, 429, "2 conversations")
        await client.delete("/v1/sessions/a")
        assert (await client.post("/v1/chat/completions", json=more)).status_code == 200


async def test_a_state_that_is_refused_is_no_session():
    async with visiting("--visitor-max-sessions", "1") as client:
        brought = await client.put("/v1/sessions/a/state", content=b"nonsense")
        assert brought.status_code == 400
        brought = await client.put("/v1/sessions/b/state", content=b"echo:1")
        assert brought.status_code == 200


async def test_requests_of_any_kind():
    async with visiting("--visitor-requests-per-minute", "3") as client:
        for path in ("/health", "/", "/config"):
            assert (await client.get(path)).status_code in (200, 503)
        refused(await client.get("/assets/index.js"), 429, "3 requests came")


async def test_visitors_have_limits_of_their_own():
    service = EchoService()
    await service.start()
    app = whole_app("--visitor-requests-per-minute", "1", service=service)
    for address in (ELSEWHERE, "198.51.100.1"):
        async with in_process(app, client=(address, 1)) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/health")).status_code == 429


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.0.0.9"])
async def test_ones_own_machine_is_not_limited(address):
    async with visiting("--visitor-requests-per-minute", "1", address=address) as client:
        for _ in range(3):
            assert (await client.get("/health")).status_code == 200
    async with visiting("--visitor-requests-per-minute", "1", RELAYED, address=address) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health")).status_code == 429


@pytest.mark.parametrize(
    ("options", "statuses"),
    [
        ((), [200, 200, 200]),  # this machine's own, whatever the header says
        (("--trusted-proxies", "127.0.0.1"), [200, 200, 429]),
        (("--trusted-proxies", "192.0.2.0/24"), [200, 200, 200]),
    ],
)
async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy(options, statuses):
    async with (
        serving("--visitor-requests-per-minute", "1", *options) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        given = []
        # The last entry is the proxy's own; whatever stands before it, the visitor wrote.
        for forwarded in ("198.51.100.1, 203.0.113.1", "203.0.113.2", "1.1.1.1, 203.0.113.1"):
            response = await client.get("/health", headers={"X-Forwarded-For": forwarded})
            given.append(response.status_code)
    assert given == statuses


async def test_a_proxy_on_this_machine_that_is_not_trusted_is_reported_once(caplog):
    async with visiting(address="127.0.0.1") as client:
        for _ in range(2):
            await client.get("/health", headers={"X-Forwarded-For": "203.0.113.1"})
    assert caplog.text.count("--trusted-proxies") == 1
    assert "203.0.113.1" not in caplog.text


async def test_open_requests():
    async with (
        serving(RELAYED, "--visitor-max-connections", "1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        client.stream("GET", "/gradio_api/heartbeat/one") as heartbeat,
    ):
        await anext(heartbeat.aiter_lines())
        refused(await client.get("/health"), 429, "1 requests from here are open")


async def test_open_connections():
    async with serving("--max-connections", "2") as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = (await asyncio.wait_for(reader.read(), 60)).decode()
        assert answer.startswith("HTTP/1.1 503")
        assert "Retry-After: 5" in answer
        assert "as many connections as it allows" in answer
        writer.close()
        for _, held_writer in held:
            held_writer.close()
            await held_writer.wait_closed()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200


def test_connections_from_one_address_are_limited_but_not_a_proxys():
    connections = Connections(7, 2, shared=["192.0.2.0/24"])
    tried = ["203.0.113.7"] * 3 + ["192.0.2.1"] * 3
    assert [connections.open(address) for address in tried] == [True, True, False, True, True, True]
    assert connections.open("127.0.0.1")
    assert not connections.open("127.0.0.1")  # the eighth
    connections.close("203.0.113.7")
    connections.close("203.0.113.7")
    assert connections.open("203.0.113.7")


def test_a_household_with_ipv6_has_the_connections_of_one_visitor():
    """Each of its addresses had as many."""
    connections = Connections(0, 2, shared=[])
    opened = [connections.open(f"2001:db8:1:2::{number:x}") for number in range(3)]
    assert opened == [True, True, False]
    assert connections.open("2001:db8:1:3::1")
    connections.close("2001:db8:1:2::1")
    connections.close("2001:db8:1:2::2")
    assert connections.open("2001:db8:1:2::9")


@pytest.mark.parametrize(("files", "room"), [(256, 192), (80, 32), (64, 16)])
def test_few_open_files_leave_a_server_of_few_connections(monkeypatch, files, room):
    """256 of them left one connection, and two thousand lines a second in the log."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))
    assert allow_files_for(2_000) == room


def test_too_few_open_files_are_a_sentence(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (63, 63))
    with pytest.raises(SettingsError, match="63 open files; at least 64 are needed, 2256 would"):
        allow_files_for(2_000)


def test_the_limit_of_open_files_is_raised_or_kept_to(monkeypatch):

    given = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append(limits))
    assert allow_files_for(500) == 1_024 - SPARE_FILES
    assert given == []
    assert allow_files_for(2_000) == 2_000
    assert allow_files_for(10_000) == 4_096 - SPARE_FILES
    assert given == [(2_000 + SPARE_FILES, 4_096), (4_096, 4_096)]


async def test_events_of_the_page_that_may_wait():
    async with visiting("--max-page-events", "1") as client:
        # Nobody takes events out: the queue only starts with the server.
        dependencies = (await client.get("/config")).json()["dependencies"]
        index = next(d["id"] for d in dependencies if d["api_name"] == "chat")
        body = {"data": ["hello", "", None, None, None, None], "fn_index": index}
        for status in (200, 503):
            join = {**body, "session_hash": "some page"}
            response = await client.post("/gradio_api/queue/join", json=join)
            assert response.status_code == status, response.text
        assert "Queue is full" in response.json()["detail"]
        assert response.headers["retry-after"]


async def test_a_503_says_when_to_come_back():
    service = EchoService()
    async with visiting(service=service) as client:
        service._status = "loading"
        assert (await client.get("/health")).headers["retry-after"]
        await service.close()
        answer = await client.post("/v1/chat/completions", json=SHORT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "30"


async def test_the_openai_client_waits_and_tries_again():
    async with serving(RELAYED, "--visitor-replies-per-minute", "60") as port:
        client = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=2
        )
        async with client:
            ask = client.chat.completions.create
            for _ in range(61):
                answer = await ask(model="echo", messages=[USER], max_tokens=1)
            assert answer.choices[0].message.content
            once = client.with_options(max_retries=0)
            with pytest.raises(openai.RateLimitError, match="60 replies were asked for"):
                for _ in range(200):  # one a second is allowed, and some were not asked for
                    await once.chat.completions.create(model="echo", messages=[USER], max_tokens=1)


async def test_a_visitor_of_the_page_is_told_in_the_chat():
    """Over Gradio's own protocol, as the browser speaks it."""
    async with (
        serving(RELAYED, "--visitor-replies-per-minute", "1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        page = Page(client, (await client.get("/config")).json())
        await page.cause("page", "load", None, None, False)
        told = [await page.cause("composer", "submit", "hello", *CONTROLS) for _ in range(2)]
    assert "You said:" in told[0]
    assert "1 replies were asked for from here within a minute" in json.dumps(told[1])
    assert "Not sent" in told[1]


async def test_tokens_per_minute():
    async with visiting("--visitor-tokens-per-minute", "30") as client:
        body = {"prompt": "word " * 60, "max_tokens": 1}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        refused(await client.post("/v1/completions", json=body), 429, "30 tokens were read")


async def test_a_reply_takes_from_its_visitors_share_and_people_have_the_larger_one():
    service = EchoService()
    app = whole_app(RELAYED, "--api-key", "a,b", "--key-weights", "b=2", service=service)
    await service.start()
    for key in "ab":
        headers = {"Authorization": f"Bearer {key}"}
        async with in_process(app, client=(ELSEWHERE, 1), headers=headers) as client:
            answer = await client.post("/v1/chat/completions", json={**SHORT, "n": 2})
            assert answer.status_code == 200, answer.text
    assert [(r.owner, r.weight) for r in service.requests] == [
        *[("key a", 1.0)] * 2,
        *[("key b", 2.0)] * 2,
    ]
