"""The web server of one process, and how it leaves: what runs may end first, then all is closed."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from falcon_mamba_app.cluster.door import Door
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.listener import Listener
from falcon_mamba_app.middleware.departure import Departure
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import ServerSettings

# A server that drains and has nothing to do waits so long for its router to notice.
QUIET_S, QUIET_BEHIND_DOOR_S = 3.0, 0.2


class Served(Protocol):
    """What is served, once it is built."""

    @property
    def service(self) -> GenerationService: ...
    @property
    def app(self) -> FastAPI: ...
    async def close(self) -> None: ...


class WebServer(uvicorn.Server):
    """Ends the replies first, so that their readers get a sentence instead of a broken line."""

    def __init__(
        self, config: uvicorn.Config, departure: Departure, drain_s: float, door: Door | None
    ) -> None:
        """Replies may go on for `drain_s`. Connections come from the parent's `door`, if any."""
        super().__init__(config)
        self._departure, self._drain_s, self._door = departure, drain_s, door
        self.served: Served | None = None

    @property
    def is_handed(self) -> bool:
        """Whether a parent hands the connections over."""
        return self._door is not None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._door is not None:
            self._door.open(self._protocol)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.served is not None:
            from falcon_mamba_app.ui.page import let_pages_go

            await self._drain(self.served.service)
            await self.served.service.close()
            let_pages_go(self.served.app)
        # Readers that do not read never end by themselves; to cut them off is no error to report.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """What reads one connection, as uvicorn itself makes it."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def _drain(self, service: GenerationService) -> None:
        """Let replies go on for a while; a router may still send some before it knows."""
        self._departure.is_draining = True
        quiet_s = QUIET_BEHIND_DOOR_S if self.is_handed else QUIET_S
        begun_s = busy_s = now_s = time.monotonic()
        while now_s - begun_s < self._drain_s and now_s - busy_s < quiet_s and not self.force_exit:
            stats = service.stats()
            if (stats.running or 0) + (stats.waiting or 0) + self._departure.num_open:
                busy_s = now_s
            await asyncio.sleep(0.05)
            now_s = time.monotonic()


def listen(settings: ServerSettings) -> Listener:
    """The open port. Raises SettingsError where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once: without, each answer and each
    # token of a stream waited 40 ms for the last one to be acknowledged.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port {settings.port} on {settings.host} cannot be used ({error.strerror});"
            " choose another with --port"
        ) from None
    return listener
