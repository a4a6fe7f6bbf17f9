"""The visitors of the soak: what they do at random, and what they count as an error.

Half of them use the page, half the API. A refusal with Retry-After, or the sentence the page shows
for it, is deliberate; anything else that is not an answer is an error.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from benchmarks.lib.page_client import PageError, PageMap, Tab, statuses

WORDS = (
    "the old man and a dog went down to see what river had brought them in spring".split()  # noqa: SIM905
)
# Words of the page's sentences for a full server and for a conversation that is being answered.
DELIBERATE = ("requests are being answered or in line", "still being written")
MAX_ERRORS_KEPT = 20


@dataclass
class Tally:
    """What all visitors together did, and what went wrong."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: list[str] = field(default_factory=list)
    num_errors: int = 0

    def did(self, what: str) -> None:
        self.counts[what] += 1

    def error(self, what: str) -> None:
        self.num_errors += 1
        if len(self.errors) < MAX_ERRORS_KEPT:
            self.errors.append(what)


class Visitor(Protocol):
    async def turn(self) -> None:
        """Do one thing."""
        ...

    async def leave(self) -> None:
        """Close everything, and forget what can be forgotten."""
        ...


class PageVisitor:
    """Sends, stops, reloads, goes away and comes back. The server keeps the session of a page that
    has gone for `keep_session_s`.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        events: PageMap,
        tally: Tally,
        chance: random.Random,
        *,
        keep_session_s: float,
    ) -> None:
        self._http, self._events, self._tally, self._chance = http, events, tally, chance
        self._keep_session_s = keep_session_s
        self._tab: Tab | None = None
        self._opened_s = 0.0  # when its tab had its conversation

    async def turn(self) -> None:
        if self._tab is None:
            await self._open(None)
        kinds = (
            (self._send, 50),
            (self._send_and_stop, 12),
            (self._send_and_reload, 12),
            (self._send_and_vanish, 6),
            (self._retry, 8),
            (self._undo, 6),
            (self._clear, 6),
        )
        (act,) = self._chance.choices([k for k, _ in kinds], [weight for _, weight in kinds])
        self._tally.did("page: " + act.__name__.strip("_").replace("_", " "))
        await act()

    async def leave(self) -> None:
        if self._tab is not None:
            self._tab.close()
            self._tab = None

    async def _open(self, session_id: str | None) -> Tab:
        tab = self._tab = Tab(self._http, self._events)
        await tab.open(session_id)
        self._opened_s = time.monotonic()
        await self._read(tab.attach())
        return tab

    def _new_message(self) -> AsyncIterator[str]:
        assert self._tab is not None
        text = " ".join(self._chance.choices(WORDS, k=self._chance.randint(1, 60)))
        length = self._chance.randint(4, 120)
        return self._tab.send(text, max_new_tokens=length, seed=self._chance.randint(0, 9_999))

    async def _send(self) -> None:
        await self._read(self._new_message())

    async def _send_and_stop(self) -> None:
        assert self._tab is not None
        tab = self._tab
        reading = asyncio.create_task(self._read(self._new_message()))
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        await tab.stop()
        await reading

    async def _send_and_reload(self) -> None:
        """Once or more, in mid-reply; what is being written goes on on the new tab."""
        reading = asyncio.create_task(self._read(self._new_message()))
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for _ in range(self._chance.randint(1, 3)):
            assert self._tab is not None
            session_id, closed_s = self._tab.session_id, time.monotonic()
            self._tab.close()
            tab = await self._open(session_id)
            away_s = self._opened_s - closed_s
            if tab.session_id == session_id:
                continue
            # A busy machine may open a page more slowly than the server waits for it.
            if away_s < self._keep_session_s:
                self._tally.error(f"a reload found another session after {away_s:.2f} s")
            else:
                self._tally.did("page: reload later than the server waits")

    async def _send_and_vanish(self) -> None:
        reading = asyncio.create_task(self._read(self._new_message()))
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await self.leave()

    async def _retry(self) -> None:
        assert self._tab is not None
        await self._read(self._tab.retry(max_new_tokens=self._chance.randint(4, 60)))

    async def _undo(self) -> None:
        assert self._tab is not None
        await self._tab.press("undo")

    async def _clear(self) -> None:
        assert self._tab is not None
        await self._tab.press("clear")

    async def _read(self, lines: AsyncIterator[str]) -> None:
        seen: set[tuple[str, str]] = set()
        is_refused = False
        async for line in lines:
            seen.update(statuses(line))
            is_refused = is_refused or any(words in line for words in DELIBERATE)
            if "Something went wrong" in line:
                self._tally.error("page: something went wrong")
        if is_refused:
            self._tally.did("page: refused, deliberately")
            return
        for phase, words in seen:
            if phase in ("failed", "lost"):
                self._tally.error(f"page: {words}")


class ApiVisitor:
    """Chats and completes, streamed or not, leaves in the middle, carries states about."""

    def __init__(
        self, http: httpx.AsyncClient, name: str, tally: Tally, chance: random.Random
    ) -> None:
        self._http, self._name, self._tally, self._chance = http, name, tally, chance
        self._messages: list[dict[str, str]] = []
        self._keys = {name}

    async def turn(self) -> None:
        kinds = (
            (self._chat, 35),
            (self._stream, 30),
            (self._stream_and_leave, 15),
            (self._complete, 10),
            (self._carry_state, 6),
            (self._ask_nonsense, 4),
        )
        (act,) = self._chance.choices([k for k, _ in kinds], [weight for _, weight in kinds])
        self._tally.did("api: " + act.__name__.strip("_").replace("_", " "))
        await act()

    async def leave(self) -> None:
        for key in self._keys:
            await self._http.delete(f"/v1/sessions/{key}")

    def _chat_body(self, **fields: Any) -> dict[str, Any]:
        if len(self._messages) > 12:
            self._messages.clear()
        text = " ".join(self._chance.choices(WORDS, k=self._chance.randint(1, 60)))
        self._messages.append({"role": "user", "content": text})
        return {
            "messages": self._messages,
            "max_tokens": self._chance.randint(1, 120),
            "prompt_cache_key": self._name,
            **fields,
        }

    def _answered(self, text: str) -> None:
        self._messages.append({"role": "assistant", "content": text or "…"})

    async def _chat(self) -> None:
        answer = await self._http.post("/v1/chat/completions", json=self._chat_body())
        if self._is_refused(answer):
            self._messages.pop()
            return
        self._answered(answer.json()["choices"][0]["message"]["content"])

    async def _stream(self) -> None:
        await self._read_stream(leave_after_s=None)

    async def _stream_and_leave(self) -> None:
        await self._read_stream(leave_after_s=self._chance.uniform(0.05, 1.0))

    async def _read_stream(self, *, leave_after_s: float | None) -> None:
        body, text, started_s = self._chat_body(stream=True), "", time.monotonic()
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
            if self._is_refused(answer):
                self._messages.pop()
                return
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    break
                if line.startswith("data: "):
                    text += self._piece(json.loads(line[6:]))
                if leave_after_s is not None and time.monotonic() - started_s > leave_after_s:
                    break
            else:
                self._tally.error("api: a stream ended without [DONE]")
        self._answered(text)

    def _piece(self, chunk: dict[str, Any]) -> str:
        if "error" in chunk:
            self._tally.error(f"api: in mid-stream: {chunk['error']['message']}")
            return ""
        choices = chunk["choices"]
        return (choices[0]["delta"].get("content") or "") if choices else ""

    async def _complete(self) -> None:
        body = {"prompt": " ".join(self._chance.choices(WORDS, k=5)), "max_tokens": 20, "n": 2}
        self._is_refused(await self._http.post("/v1/completions", json=body))

    async def _carry_state(self) -> None:
        """Take the session's state as a file and bring it back under another name."""
        state = await self._http.get(f"/v1/sessions/{self._name}/state")
        if state.status_code == 404:
            self._tally.did("api: no state to carry")
            return
        if self._is_refused(state):
            return
        branch = f"{self._name}-branch"
        self._keys.add(branch)
        address = f"/v1/sessions/{branch}/state"
        self._is_refused(await self._http.put(address, content=state.content))

    async def _ask_nonsense(self) -> None:
        body = {"messages": [], "temperature": 99}
        answer = await self._http.post("/v1/chat/completions", json=body)
        if answer.status_code != 400:
            self._tally.error(f"api: nonsense was answered with {answer.status_code}")

    def _is_refused(self, answer: httpx.Response) -> bool:
        if answer.status_code == 200:
            return False
        if answer.status_code in (429, 503) and "retry-after" in answer.headers:
            self._tally.did("api: refused, deliberately")
        else:
            self._tally.error(f"api: status {answer.status_code}: {answer.text[:200]}")
        return True


async def visit(visitor: Visitor, until_s: float, tally: Tally, chance: random.Random) -> None:
    """One visitor's time, with pauses to read and think."""
    while time.monotonic() < until_s:
        try:
            async with asyncio.timeout(120):
                await visitor.turn()
        except (httpx.HTTPError, PageError, TimeoutError, KeyError, ValueError) as error:
            tally.error(f"{type(visitor).__name__}: {type(error).__name__} {error}"[:300])
        await asyncio.sleep(min(chance.expovariate(1.0), until_s - time.monotonic() + 0.01, 3.0))
