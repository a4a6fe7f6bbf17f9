"""The page as a browser drives it, without the browser: Gradio's queue over server-sent events.

A tab opens with a hash of its own, holds a heartbeat while it is open, joins the queue for each
event and reads what comes back. For load and fault tests; it draws nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import astuple, replace
from typing import Any, cast

import httpx

from falcon_mamba_app.ui.view.controls import ControlValues

STATUS = re.compile(r'data-phase=\\"(\w+)\\">([^<]*)<')
SAVED = re.compile(r'\{\\"id\\":\\"([\w-]+)\\"')
SETTINGS = ControlValues(temperature=0.7, top_p=0.95)  # the bundled model's defaults


def _sent(values: ControlValues) -> tuple[Any, ...]:
    """What the components of the settings send, in their order."""
    return astuple(values)


class PageError(Exception):
    """The page answered what no visitor should see."""


class PageMap:
    """Which number each event of the page has."""

    def __init__(self, config: dict[str, Any]) -> None:
        names = {c["id"]: c["props"].get("elem_id") or c["type"] for c in config["components"]}
        self._numbers = {
            (names.get(target, "page"), event): dependency["id"]
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }

    def __getitem__(self, event: tuple[str, str]) -> int:
        return int(self._numbers[event])


async def page_map(http: httpx.AsyncClient) -> PageMap:
    return PageMap((await http.get("/config")).raise_for_status().json())


class Tab:
    """One open tab. `session_id` is what its browser remembers for the next one."""

    def __init__(self, http: httpx.AsyncClient, events: PageMap) -> None:
        self._http, self._events = http, events
        self.page = secrets.token_hex(6)
        self.session_id: str | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    async def open(self, session_id: str | None = None) -> None:
        """Load the page as a browser that remembers the session, or none."""
        self._heartbeat = asyncio.create_task(self._beat())
        saved = None if session_id is None else json.dumps({"id": session_id})
        async for line in self.cause("page", "load", saved, None, False):
            if found := SAVED.search(line):
                self.session_id = found[1]

    def attach(self) -> AsyncGenerator[str, None]:
        """Show the conversation, and the reply in progress to its end; the lines that come."""
        return self.cause("page", "then", None)

    def send(
        self, text: str, *, max_new_tokens: int = 40, seed: int = 0
    ) -> AsyncGenerator[str, None]:
        """Send a message; the lines that come until the reply's end."""
        controls = _sent(replace(SETTINGS, max_new_tokens=max_new_tokens, seed=str(seed)))
        return self.cause("composer", "submit", text, *controls)

    def retry(self, *, max_new_tokens: int = 40) -> AsyncGenerator[str, None]:
        return self.cause(
            "retry", "click", *_sent(replace(SETTINGS, max_new_tokens=max_new_tokens))
        )

    async def press(self, button: str) -> None:
        """Undo or clear, to the end of the event."""
        async for _ in self.cause(button, "click"):
            pass

    async def stop(self) -> None:
        """Press Stop, which does not go through the queue."""
        body = self._body("stop", "click", [])
        (await self._http.post("/gradio_api/run/predict", json=body)).raise_for_status()

    def close(self) -> None:
        """Go away, without a word, as browsers do."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    async def cause(self, component: str, event: str, *data: Any) -> AsyncGenerator[str, None]:
        """Let an event happen; the lines of the stream until it is over. Raises PageError."""
        body = self._body(component, event, list(data))
        joined = await self._http.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            raise PageError(f"{component} {event}: status {joined.status_code}")
        async with (
            self._http.stream(
                "GET", "/gradio_api/queue/data", params={"session_hash": self.page}
            ) as stream,
            aclosing(cast("AsyncGenerator[str, None]", stream.aiter_lines())) as lines,
        ):
            async for line in lines:
                if line:
                    yield line
                if '"msg":"process_completed"' in line:
                    if '"success":true' not in line:
                        raise PageError(f"{component} {event}: {line[:300]}")
                    return
                if '"msg":"unexpected_error"' in line:
                    raise PageError(f"{component} {event}: {line[:300]}")
        raise PageError(f"{component} {event}: the stream ended too early")

    def _body(self, component: str, event: str, data: list[Any]) -> dict[str, Any]:
        number = self._events[component, event]
        return {"data": data, "fn_index": number, "session_hash": self.page}

    async def _beat(self) -> None:
        address = f"/gradio_api/heartbeat/{self.page}"
        with suppress(httpx.HTTPError):
            async with self._http.stream("GET", address, timeout=None) as stream:
                async for _ in stream.aiter_raw():
                    pass


def statuses(line: str) -> list[tuple[str, str]]:
    """The status lines that a line of the stream shows: phase and words."""
    return STATUS.findall(line)
