"""Settings → service → API and page → one server. Nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvicorn

from falcon_mamba_app.bundled import ASSETS
from falcon_mamba_app.cluster.door import Door, Inherited
from falcon_mamba_app.cluster.routing import COOKIE
from falcon_mamba_app.commands import COMMANDS, run
from falcon_mamba_app.data_folder import data_folder, kept_secret
from falcon_mamba_app.errors import FalconMambaError, is_lack_of_memory
from falcon_mamba_app.figures import FiguredService, Figures
from falcon_mamba_app.garbage import keep_what_is_there, let_go
from falcon_mamba_app.logs import LoopErrors, set_up_logging
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import Platform, Settings, load_settings
from falcon_mamba_app.temporary import keep_temporary_files
from falcon_mamba_app.traces import Traces

if TYPE_CHECKING:
    from fastapi import FastAPI

    from falcon_mamba_app.keeping import Keeping
    from falcon_mamba_app.middleware.opening import Opening
    from falcon_mamba_app.shared_limits import SharedLimits
    from falcon_mamba_app.tally import Tally
    from falcon_mamba_app.web_server import WebServer

logger = logging.getLogger("falcon_mamba_app")

# An open page holds a connection for as long as it is open; without a limit it would block exit.
MAX_SHUTDOWN_S = 3
COPY = "copy"  # how a parent starts a copy; for people there is --replicas
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# OpenMP's threads wait for work by spinning. With a browser on the same cores that made replies up
# to three times slower; `benchmarks/cpu_choices.py` measures it. Read once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "100")
# oneDNN keeps what it compiled for the last 1,024 shapes, and the tokens of a step are always of a
# new one: 0.3 MB each, hundreds in all. The layers of one step need few; that is no slower.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")  # the same in torch's layer above it
# Read when the hub's client is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def main() -> int:
    """Run until told to stop, or run one command; returns the exit status."""
    try:
        # As process 1 of a container it would otherwise not hear SIGTERM before the server listens.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # A shell's background job starts with SIGINT ignored and would end with status 0.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        name, *arguments = sys.argv[1:] or [""]
        if name in COMMANDS:
            return run(name, arguments, os.environ)
        inherited = Inherited.parse(arguments.pop(0)) if name == COPY else None
        given = arguments if name in (COPY, "serve") else sys.argv[1:]
        settings = load_settings(given, os.environ)
        set_up_logging(settings.server.log_level, settings.server.log_format)
        if settings.cluster.replicas != 1:
            return asyncio.run(serve_copies(settings, given))
        keep_temporary_files()
        asyncio.run(serve(settings, inherited))
    except FalconMambaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        print(
            f"error: the system gave no more memory ({type(error).__name__}); allow this process"
            " more (`ulimit -v`, a container's limit), or choose a smaller --model",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        let_go()
    return 0


async def serve_copies(settings: Settings, arguments: list[str]) -> int:
    """Serve with several copies of this program; the exit status. Raises SettingsError."""
    from falcon_mamba_app.cluster.supervisor import supervise
    from falcon_mamba_app.web_server import listen

    settings, listener = with_secret(settings), listen(settings.server)
    listener.listen()
    _tell_address(listener.getsockname()[1], settings)
    return await supervise(settings, listener, arguments, os.environ)


async def serve(settings: Settings, inherited: Inherited | None = None) -> None:
    """Serve the page and the API; the model loads meanwhile. Raises what prevents a start.

    With what is `inherited` this is a copy of a parent, which hands its connections over.
    """
    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    settings = with_secret(settings)
    # Imported here, so that --help and a bad setting do not wait for it.
    from falcon_mamba_app.middleware.departure import Departure
    from falcon_mamba_app.middleware.opening import Opening
    from falcon_mamba_app.middleware.stack import listening
    from falcon_mamba_app.web_server import WebServer, listen

    door = None
    if inherited is not None:
        door = Door(inherited)
        door.end_with_parent()
    reading = listening(settings)
    listener = listen(settings.server) if door is None else door.listener
    page = (ASSETS / "opening.html").read_text("utf-8")
    opening = Opening(page, root_path=settings.server.base_path)
    departure = Departure(
        opening,
        copy=settings.cluster.replica,
        cookie=COOKIE,
        is_handed=door is not None,
        root_path=settings.server.base_path,
    )
    config = uvicorn.Config(
        departure,
        timeout_graceful_shutdown=MAX_SHUTDOWN_S,
        lifespan="on",
        **reading,
    )
    server = WebServer(config, departure, settings.cluster.drain_s, door)
    await _run(server, listener, opening, settings)


async def build(settings: Settings, on_progress: Callable[[float, str], None]) -> Served:
    """The service and the app over it, while others use the loop. Raises what prevents a start."""
    from falcon_mamba_app.keeping import Keeping
    from falcon_mamba_app.service import build_service
    from falcon_mamba_app.shared_limits import SharedLimits

    if settings.platform.lends_gpus:  # what it lends must be declared by the main thread
        built = build_service(settings)
    else:
        built = await asyncio.to_thread(build_service, settings, on_progress)
        await asyncio.to_thread(import_module, "falcon_mamba_app.ui.page")
    figures = Figures()
    endpoint = settings.server.trace_endpoint
    service = FiguredService(built, figures, Traces.sent_to(endpoint) if endpoint else None)
    keeping = await Keeping.open(settings)
    keeping.delete_old(settings.library.keep_days, service.forget)
    secret, copy = settings.server.session_secret, settings.cluster.replica
    shared = None if copy is None else SharedLimits.begin(keeping.library, secret)
    # Here and not on a thread: Gradio makes locks of the loop.
    tally = None if shared is None else shared.tally
    app = build_app(service, settings, figures, keeping, tally)
    return Served(service, app, keeping, shared)


def with_secret(settings: Settings) -> Settings:
    """The settings with a secret. Where states outlive the process it is the same after a restart,
    because the names of sessions are made from it.
    """
    if settings.server.session_secret is not None or not settings.keeps_states:
        return settings
    secret = kept_secret(data_folder(settings.library.data_dir))
    return replace(settings, server=replace(settings.server, session_secret=secret))


def build_app(
    service: GenerationService,
    settings: Settings,
    figures: Figures | None = None,
    keeping: Keeping | None = None,
    tally: Tally | None = None,
) -> FastAPI:
    """The API and the page over `service`, and what protects both."""
    from falcon_mamba_app.api.routes import create_api
    from falcon_mamba_app.middleware.stack import protect
    from falcon_mamba_app.people.keys import Keys
    from falcon_mamba_app.ui.page import mount_page

    server, limits = settings.server, settings.limits
    figures = figures or Figures()
    app = create_api(
        service,
        api_keys=server.api_key or ((server.auth,) if server.auth else ()),
        session_secret=server.session_secret,
        served_names=server.served_model_name,
        reuse_prompts=server.reuse_prompts,
        figures=figures,
        keeping=keeping,
        keys=Keys(Path(settings.people.keys)) if settings.people.keys else None,
        is_locked=settings.people.is_lock,
        copy=settings.cluster.replica,
        max_state_bytes=limits.max_state_bytes,
    )
    mount_page(
        app,
        service,
        limits=limits,
        keep_session_s=server.keep_session_s,
        root_path=server.root_path,
        session_secret=server.session_secret,
        keeping=keeping,
        signs_in=settings.platform.signs_in,
        signs_out=settings.has_login,
    )
    protect(app, settings, refused=figures.refused, tally=tally)
    return app


class Served(NamedTuple):
    """What there is once it is built."""

    service: GenerationService
    app: FastAPI
    keeping: Keeping
    shared: SharedLimits | None = None

    async def close(self) -> None:
        """The replies end before the library that they are written into."""
        from falcon_mamba_app.api.routes import let_responses_end

        await self.service.close()
        await let_responses_end(self.app)
        if self.shared is not None:
            await self.shared.close()
        await self.keeping.close()


async def _run(
    server: WebServer, listener: socket.socket, opening: Opening, settings: Settings
) -> None:
    """Run server and model side by side; either one's failure is the end of both."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(_start(server, opening, settings))
    announcing = asyncio.create_task(_announce(server, listener, settings))
    try:
        await asyncio.wait((starting, serving), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            keep_what_is_there()
            logger.info("ready to answer")
        await serving
    finally:
        server.should_exit = True
        announcing.cancel()
        starting.cancel()
        if server.served is not None:
            await server.served.close()
        await asyncio.gather(serving, starting, announcing, return_exceptions=True)


async def _start(server: WebServer, opening: Opening, settings: Settings) -> None:
    """Build, open the page, and load the model. Raises what prevents it."""
    served = server.served = await build(settings, opening.tell)
    opening.open(served.app)
    await served.service.start()
    from falcon_mamba_app.api.routes import go_on_with_batches

    go_on_with_batches(served.app)


async def _announce(server: WebServer, listener: socket.socket, settings: Settings) -> None:
    """Say where the server is, once it answers, and who can reach it."""
    while not server.started:
        await asyncio.sleep(0.01)
    if server.is_handed:
        return  # the parent says it
    port = listener.getsockname()[1]
    _tell_address(port, settings)
    if settings.server.share:
        # A daemon: a relay that does not answer must not keep the app from ending.
        threading.Thread(
            target=_share, args=(port, settings.platform), name="link", daemon=True
        ).start()


def _tell_address(port: int, settings: Settings) -> None:
    host = settings.server.host
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    print("Starting. The page can be opened now, and shows how far it is:")
    print(f"Falcon Mamba is at http://{host}:{port}", flush=True)
    _warn_if_open(settings)


def _share(port: int, platform: Platform) -> None:
    from falcon_mamba_app.ui.share_link import open_link

    link = open_link(port, platform)
    if link:
        print(f"Public link: {link}", flush=True)


def _warn_if_open(settings: Settings) -> None:
    """Warn about a shared server without a lock. Any lock locks both the page and the API."""
    server = settings.server
    is_private = server.host in LOOPBACK and not server.share
    if not (is_private or server.auth or server.api_key or settings.people.is_lock):
        logger.warning(
            "anyone who can reach this server may use the page and the API;"
            " lock both with --auth USER:PASSWORD or --api-key KEY"
        )
