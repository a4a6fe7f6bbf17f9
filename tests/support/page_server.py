"""The page over any service, on a free port of this machine, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.listener import Listener
from falcon_mamba_app.middleware.stack import listening, protect
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import ServerSettings, Settings, load_settings
from falcon_mamba_app.ui.page import mount_page


@contextmanager
def serve_page(service: GenerationService, **options: Any) -> Iterator[str]:
    """The page's address, while the context lasts. The service is started here too, unless the
    option `is_loading` is given.
    """
    with Listener(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(service, listener, options)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()


class _Server(threading.Thread):
    """Builds the page inside the loop that serves it: Gradio makes locks while it is built."""

    def __init__(
        self, service: GenerationService, listener: socket.socket, options: dict[str, Any]
    ) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._listener = listener
        self._options = options
        self._is_up = threading.Event()
        self._uvicorn: _Uvicorn | None = None

    def start(self) -> None:
        super().start()
        self._is_up.wait(timeout=60)

    def stop(self) -> None:
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        self.join(timeout=60)

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_up.set()

    async def _health(self, request: Request) -> JSONResponse:
        """As the API answers: while the model is loading the server lives, and is not ready."""
        status = self._service.stats().status
        is_well = status == "ready" or (status == "loading" and request.url.path.endswith("/live"))
        return JSONResponse({"status": status}, 200 if is_well else 503)

    async def _serve(self) -> None:
        if not self._options.pop("is_loading", False):
            await self._service.start()
        root_path = self._options.get("root_path", "")
        if folder := self._options.pop("data_dir", None):  # where conversations are kept
            settings = load_settings(("--data-dir", str(folder)), {})
            self._options["keeping"] = await Keeping.open(settings)
        server = ServerSettings(auth=self._options.pop("auth", None), root_path=root_path)
        settings = Settings(server=server)
        app = FastAPI()
        for path in ("/health", "/health/live"):  # which the page asks
            app.add_api_route(path, self._health)
        mount_page(app, self._service, signs_out=settings.has_login, **self._options)
        protect(app, settings)
        options = {**listening(settings), "log_level": "critical"}
        config = uvicorn.Config(app, timeout_graceful_shutdown=1, **options)
        self._uvicorn = _Uvicorn(config, self._is_up)
        await self._uvicorn.serve([self._listener])


class _Uvicorn(uvicorn.Server):
    """Says when it is listening, so that nobody has to poll."""

    def __init__(self, config: uvicorn.Config, is_up: threading.Event) -> None:
        super().__init__(config)
        self._is_up = is_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_up.set()
