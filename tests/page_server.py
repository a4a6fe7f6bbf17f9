"""The page over any service, on a free port of this machine, in a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.ui.page import mount_page


@contextmanager
def serve_page(service: GenerationService, **options: Any) -> Iterator[str]:
    """The page's address, while the context lasts. The service is started by the caller."""
    app = mount_page(FastAPI(), service, **options)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=1, ws="none", lifespan="on"
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        server.is_up.wait(timeout=30)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


class _Server(uvicorn.Server):
    """Says when it is listening, so that nobody has to poll."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
