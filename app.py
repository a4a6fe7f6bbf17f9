"""Settings → service → API and page → one server. Nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

import uvicorn

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import ServerSettings, Settings, load_settings

logger = logging.getLogger("falcon_mamba_app")

# An open page holds a connection for as long as it is open; without a limit it would block exit.
MAX_SHUTDOWN_S = 3


def main() -> int:
    """Run until told to stop; returns the exit status."""
    try:
        settings = load_settings(sys.argv[1:], os.environ)
        logging.basicConfig(
            level=settings.server.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
        )
        asyncio.run(serve(settings))
    except FalconMambaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(settings: Settings) -> None:
    """Serve the page and the API; the model loads meanwhile. Raises what prevents a start."""
    from falcon_mamba_app.api.routes import create_api
    from falcon_mamba_app.service import build_service
    from falcon_mamba_app.ui.page import mount_page

    service = build_service(settings)
    app = create_api(service, api_keys=settings.server.api_key)
    mount_page(app, service, auth=_credentials(settings.server))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.server.host,
            port=settings.server.port,
            log_level="warning",
            timeout_graceful_shutdown=MAX_SHUTDOWN_S,
        )
    )
    await _run(server, service, settings.server)


async def _run(
    server: uvicorn.Server, service: GenerationService, settings: ServerSettings
) -> None:
    """Run server and model side by side; either one's end is the end of both."""
    starting = asyncio.create_task(service.start())
    serving = asyncio.create_task(server.serve())
    try:
        await _announce(server, serving, settings)
        await asyncio.wait((starting, serving), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            logger.info("ready to answer")
        await serving
    finally:
        server.should_exit = True
        await service.close()
        with contextlib.suppress(SystemExit):
            await serving
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, FalconMambaError):
            await starting


async def _announce(
    server: uvicorn.Server, serving: asyncio.Task[None], settings: ServerSettings
) -> None:
    """Print the address once the port is open."""
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if serving.done():
        return
    port = server.servers[0].sockets[0].getsockname()[1]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    print(f"Falcon Mamba is at http://{host}:{port}", flush=True)


def _credentials(settings: ServerSettings) -> tuple[str, str] | None:
    if settings.auth is None:
        return None
    user, _, password = settings.auth.partition(":")
    return user, password


if __name__ == "__main__":
    sys.exit(main())
