"""A server for one terminal: the model in this process, on a port of this machine that asks for a
key that nobody else has.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.settings import Settings

MAX_START_S = 60.0


@contextmanager
def local_server(settings: Settings) -> Iterator[tuple[str, str]]:
    """Its address and its key, before the model has been loaded. Raises what prevents a start."""
    key = secrets.token_urlsafe(24)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(settings, key, listener)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", key
        finally:
            server.stop()
    if server.failure is not None:
        raise server.failure


class _Server(threading.Thread):
    def __init__(self, settings: Settings, key: str, listener: socket.socket) -> None:
        super().__init__(name="local-server", daemon=True)
        self._settings, self._key, self._listener = settings, key, listener
        self._server: uvicorn.Server | None = None
        self._is_up = threading.Event()
        self.failure: FalconMambaError | None = None

    def start(self) -> None:
        super().start()
        self._is_up.wait(MAX_START_S)
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self.join(MAX_START_S)

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except FalconMambaError as error:
            self.failure = error
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        # Imported here: a chat with a server elsewhere needs no model.
        from falcon_mamba_app.api.routes import create_api, let_responses_end
        from falcon_mamba_app.keeping import Keeping
        from falcon_mamba_app.middleware.visitor_limits import VisitorLimits
        from falcon_mamba_app.service import build_service
        from falcon_mamba_app.visitors import Visitors

        service = build_service(self._settings)
        keeping = await Keeping.open(self._settings)
        app = create_api(service, api_keys=(self._key,), keeping=keeping)
        visitors = Visitors(self._settings.limits)
        app.add_middleware(VisitorLimits, visitors=visitors, exempts_this_machine=True)
        config = uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        self._is_up.set()
        try:
            await service.start()
            await serving
        finally:
            self._server.should_exit = True
            await service.close()
            await let_responses_end(app)
            await keeping.close()
            await asyncio.gather(serving, return_exceptions=True)
