"""The whole application as it is served: page, API and what protects both, over an EchoService."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route

from falcon_mamba_app import server as composition
from falcon_mamba_app.listener import Listener
from falcon_mamba_app.middleware.stack import listening
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import load_settings
from tests.support.api_fixtures import in_process, until
from tests.support.echo_service import EchoService

ELSEWHERE = "203.0.113.7"  # an address for documentation: nobody's, and not this machine's


def whole_app(*options: str, service: GenerationService | None = None) -> FastAPI:
    """The application that app.py serves with these options."""
    settings = load_settings(options, {})
    return composition.build_app(service or EchoService(), settings)


@asynccontextmanager
async def visiting(
    *options: str, address: str = ELSEWHERE, service: GenerationService | None = None
) -> AsyncIterator[Any]:
    """A client at `address`, in process."""
    service = service or EchoService()
    await service.start()
    app = whole_app(*options, service=service)
    async with in_process(app, client=(address, 1234)) as client:
        yield client


@asynccontextmanager
async def serving(*options: str, service: GenerationService | None = None) -> AsyncIterator[int]:
    """A real server with these options; yields its port."""
    service = service or EchoService()
    await service.start()
    settings = load_settings(options, {})
    with Listener(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            composition.build_app(service, settings),
            timeout_graceful_shutdown=1,
            **listening(settings),
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


def every_route(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted applications included; parameters of the
    path are filled in.
    """
    for route in routes:
        if isinstance(route, Mount):
            yield from every_route(list(route.routes), prefix + route.path)
        elif hasattr(route, "original_router"):  # FastAPI's included router
            yield from every_route(list(route.original_router.routes), prefix)
        else:
            assert isinstance(route, Route), f"what is a {type(route).__name__}?"
            for method in route.methods or ():
                yield method, prefix + _filled(route.path)


def _filled(path: str) -> str:
    before, opening, rest = path.partition("{")
    if not opening:
        return path
    return before + "1" + _filled(rest.partition("}")[2])


class Page:
    """A browser tab that speaks Gradio's protocol."""

    def __init__(self, client: httpx.AsyncClient, config: Any, session_hash: str = "") -> None:
        self.session_hash = session_hash or secrets.token_hex(6)
        self._client = client
        names = {c["id"]: c["props"].get("elem_id") or c["type"] for c in config["components"]}
        self.events = {
            (names.get(target, "page"), event): dependency["id"]
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }

    async def begin(self, component: str, event: str, *data: Any) -> httpx.Response:
        """Let an event happen; the answer names it."""
        index = self.events[component, event]
        body = {"data": data, "fn_index": index, "session_hash": self.session_hash}
        return await self._client.post("/gradio_api/queue/join", json=body)

    async def at_once(self, component: str, event: str, *data: Any) -> None:
        """Let an event happen that does not wait in Gradio's queue."""
        index = self.events[component, event]
        body = {"data": data, "fn_index": index, "session_hash": self.session_hash}
        await self._client.post("/gradio_api/run/predict", json=body)

    async def cause(self, component: str, event: str, *data: Any) -> str:
        """Let an event happen and read what the server sends about it, to the end."""
        (await self.begin(component, event, *data)).raise_for_status()
        params = {"session_hash": self.session_hash}
        return (await self._client.get("/gradio_api/queue/data", params=params)).text
