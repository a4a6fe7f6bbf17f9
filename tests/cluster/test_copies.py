"""Two real copies behind one address: sessions stick, move, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from playwright.async_api import async_playwright

from benchmarks import cluster
from benchmarks.lib.copies import Copies
from falcon_mamba_app.cluster.routing import COOKIE
from tests.browser.conftest import (
    CHROMIUM,
    LAPTOP,
    open_page,
    send,
    transcript,
    wait_for_status,
)
from tests.support.haproxy import haproxy

STORY = "Tell me a long story about a fox who wants to read a book, and the river behind the house."
CHAT = "/v1/chat/completions"
IS_ANOTHER = "() => window.isTheFirst !== true"
SHORT = {"max_output_tokens": 2, "temperature": 0}

pytestmark = pytest.mark.slow


def chat(http: httpx.Client, key: str, messages: list[dict], **more):
    body = {"messages": messages, "max_tokens": 12, "temperature": 0, "prompt_cache_key": key}
    answer = http.post(CHAT, json={**body, **more})
    answer.raise_for_status()
    return answer.json()


def said(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


def cached(answer: dict) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def asks(text: str) -> dict:
    return {"role": "user", "content": text}


def answers(text: str) -> dict:
    return {"role": "assistant", "content": text}


def told(copies: Copies, name: str) -> dict[str, float]:
    """One figure of each copy's metrics."""
    figures = {}
    for copy, url in copies.own_urls.items():
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        line = next(line for line in lines if line.startswith(f"falcon_mamba_{name} "))
        figures[copy] = float(line.split()[-1])
    return figures


def by_copy(copies: Copies, http: httpx.Client, name: str, number: int) -> list[dict[str, float]]:
    """How many of so many sessions each copy served, in a first and in a second round."""
    counts = [told(copies, "requests_total")]
    for _ in range(2):
        for session in range(number):
            chat(http, f"{name} {session}", [asks(STORY)], max_tokens=1)
        counts.append(told(copies, "requests_total"))
    return [
        {copy: after[copy] - before[copy] for copy in before}
        for before, after in itertools.pairwise(counts)
    ]


def test_sixty_sessions_stick_and_both_copies_serve_them(copies, http):
    first, second = by_copy(copies, http, "stick", 60)
    assert first == second
    assert sum(first.values()) == 60 and min(first.values()) >= 20


def test_after_a_kill_in_mid_reply_the_next_turn_answers_the_same_elsewhere(copies, http):
    turns = [asks(STORY)]
    first = chat(http, "killed", turns)
    turns += [answers(said(first)), asks("And then?")]
    undisturbed = chat(http, "undisturbed", turns)
    published = http.post("/v1/sessions/killed/state").json()
    lives = copies.lives
    begun = {"messages": turns, "prompt_cache_key": "killed", "stream": True, "ignore_eos": True}
    with http.stream("POST", CHAT, json={**begun, "max_tokens": 2000}) as stream:
        parts = stream.iter_text()
        next(parts)
        running = told(copies, "sequences_running")
        copies.kill(max(running, key=lambda name: running[name]))
        with pytest.raises(httpx.TransportError):
            list(parts)
    moved = chat(http, "killed", turns)
    assert said(moved) == said(undisturbed)
    assert cached(moved) == published["num_tokens"] > 0
    copies.wait_until_ready(lives + 1)


async def test_a_conversation_moves_with_its_published_state_as_the_benchmark_measures_it(copies):
    """Home and the other copy are asked at their own addresses, whatever a router would do."""
    moved = await cluster.move(copies, 300)
    assert moved["equals_stayed"], moved
    assert moved["moved_cached"] == moved["published_tokens"] > 200
    assert moved["read_again_cached"] == 0
    assert await cluster.throughput(copies.url, 2, 40) > 0


async def test_turns_at_once_on_few_conversations_leave_whole_transcripts(copies):
    """Two hundred turns on twenty conversations; whoever finds one claimed asks again."""
    async with httpx.AsyncClient(base_url=copies.url, timeout=120) as http:

        async def begin() -> str:
            return (await http.post("/v1/conversations", json={})).json()["id"]

        async def turn(conversation: str, number: int) -> int:
            asked = {"conversation": conversation, "input": f"Number {number}", **SHORT}
            refused = 0
            while True:
                # Half of them by hand at a copy, so that both copies write the same conversations.
                url = list(copies.own_urls.values())[number // 20 % 2]
                answer = await http.post(f"{url}/v1/responses", json=asked)
                if answer.status_code == 200:
                    assert answer.json()["status"] in ("completed", "incomplete"), answer.text
                    return refused
                assert answer.json()["error"]["code"] == "conversation_locked", answer.text
                refused += 1
                await asyncio.sleep(0.05)

        conversations = await asyncio.gather(*(begin() for _ in range(20)))
        refused = await asyncio.gather(
            *(turn(conversations[number % 20], number) for number in range(200))
        )
        assert sum(refused) > 0
        for place, conversation in enumerate(conversations):
            path = f"/v1/conversations/{conversation}/items"
            items = (await http.get(path, params={"limit": 100, "order": "asc"})).json()["data"]
            assert [item["role"] for item in items] == ["user", "assistant"] * 10
            numbers = {item["content"][0]["text"] for item in items if item["role"] == "user"}
            assert numbers == {f"Number {n}" for n in range(place, 200, 20)}


def test_haproxy_with_the_committed_configuration_keeps_sessions_and_pages(copies):
    with haproxy(copies.own_urls) as url, httpx.Client(base_url=url, timeout=60) as http:
        first_round, second_round = by_copy(copies, http, "proxied", 20)
        assert first_round == second_round
        assert min(first_round.values()) > 0
        for number in range(4):
            asked = {"input": STORY, **SHORT}
            headers = {"x-session-id": f"one of {number}"}
            first = http.post("/v1/responses", json=asked, headers=headers).json()
            # Only its end leads the next one to the copy that has it in memory.
            again = {**asked, "previous_response_id": first["id"]}
            second = http.post("/v1/responses", json=again).json()
            assert second["id"].rpartition("-")[2] == first["id"].rpartition("-")[2]
        for name in copies.own_urls:
            page = http.get("/", headers={"cookie": f"{COOKIE}={name}"})
            assert page.status_code == 200 and "set-cookie" not in page.headers


def test_replacing_both_copies_under_load_loses_nothing(copies):
    """Four clients talk without a pause. Each reply comes whole, and at most the two moves of a
    conversation read anything again.
    """
    lives, is_over = copies.lives, threading.Event()

    def talk(number: int) -> list[int]:
        turns, found = [asks(STORY)], []
        with httpx.Client(base_url=copies.url, timeout=120) as http:
            while not is_over.is_set():
                answer = chat(http, f"talk {number}", turns, max_tokens=4)
                assert answer["choices"][0]["finish_reason"] in ("length", "stop")
                found.append(cached(answer))
                turns += [answers(said(answer)), asks("And then?")]
        return found

    with ThreadPoolExecutor(4) as threads:
        talks = [threads.submit(talk, number) for number in range(4)]
        copies.process.send_signal(signal.SIGHUP)
        copies.wait_until_ready(lives + 2)
        is_over.set()
        for one in talks:
            _, *later = one.result()
            assert later and sum(map(bool, later)) >= len(later) - 2, later


@pytest.mark.browser
async def test_a_page_whose_copy_dies_goes_on_at_another_with_its_conversation(copies):
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"no browser at {CHROMIUM}; set CHROMIUM to its path")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = await browser.new_context(viewport=LAPTOP)
        page = await context.new_page()
        await open_page(page, copies.url)
        await send(page, "My name is Pia.")
        await wait_for_status(page, "Done")
        before = await transcript(page)
        (home,) = [one["value"] for one in await context.cookies() if one["name"] == COOKIE]
        await page.evaluate("window.isTheFirst = true")
        # The page asks every two seconds; it must have heard its own server first.
        await page.wait_for_event("response", lambda answer: answer.url.endswith("/health/live"))
        lives = copies.lives
        copies.kill(home)
        await page.wait_for_function(IS_ANOTHER, timeout=60_000)
        await page.wait_for_selector(".status-line:not([data-phase=starting])")
        assert await transcript(page) == before
        await send(page, "What is my name?")
        await wait_for_status(page, "Done")
        assert (await transcript(page))[:2] == before and len(await transcript(page)) == 4
        (new,) = [one["value"] for one in await context.cookies() if one["name"] == COOKIE]
        assert new != home
        await browser.close()
    copies.wait_until_ready(lives + 1)


def test_copies_do_not_outlive_a_parent_that_is_killed(pair):
    """The last one: it ends the pair."""
    left = [psutil.Process(pair.pid_of(name)) for name in pair.own_urls]
    pair.process.kill()
    pair.process.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
