"""Two real copies behind one address: sessions stick, move, and nothing is lost."""

from __future__ import annotations

import httpx
import pytest

from tests.support.cluster import Copies

STORY = "Tell me a long story about a fox who wants to read a book, and the river behind the house."
CHAT = "/v1/chat/completions"

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


def test_sixty_sessions_stick_and_both_copies_serve_them(copies):
    before = told(copies, "requests_total")
    for _ in range(2):
        turns = [chat(copies.http, f"stick {n}", [asks(STORY)], max_tokens=1) for n in range(60)]
    # A second turn that found its state in memory was where the first one was.
    assert all(cached(answer) > 0 for answer in turns)
    after = told(copies, "requests_total")
    assert [after[name] - before[name] for name in before] == [60, 60]


def test_after_a_kill_in_mid_reply_the_next_turn_answers_the_same_elsewhere(copies):
    turns = [asks(STORY)]
    first = chat(copies.http, "killed", turns)
    turns += [answers(said(first)), asks("And then?")]
    undisturbed = chat(copies.http, "undisturbed", turns)
    published = copies.http.post("/v1/sessions/killed/state").json()
    lives = copies.lives
    begun = {"messages": turns, "prompt_cache_key": "killed", "stream": True, "ignore_eos": True}
    with copies.http.stream("POST", CHAT, json={**begun, "max_tokens": 2000}) as stream:
        parts = stream.iter_text()
        next(parts)
        running = told(copies, "sequences_running")
        copies.kill(max(running, key=lambda name: running[name]))
        with pytest.raises(httpx.TransportError):
            list(parts)
    moved = chat(copies.http, "killed", turns)
    assert said(moved) == said(undisturbed)
    assert cached(moved) == published["num_tokens"] > 0
    copies.wait_until_ready(lives + 1)
