"""The parent: it starts the copies, keeps them running, and ends them with itself.

SIGTERM and Ctrl+C end all; SIGHUP replaces the copies one after the other, each when the one before
is ready, so that somebody always answers. If this process is killed, its copies end by themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from falcon_mamba_app.cluster.copy_process import CannotStart, CopyProcess
from falcon_mamba_app.cluster.plans import plan_copies
from falcon_mamba_app.cluster.router import Router
from falcon_mamba_app.settings import Settings

logger = logging.getLogger(__name__)

SECRET = "FALCON_MAMBA_SESSION_SECRET"
OURS = "FALCON_MAMBA_REPLICAS"  # a copy has none of its own
WRONG_SETTINGS = 2


async def supervise(
    settings: Settings,
    listener: socket.socket,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    """Run the copies until told to stop; the exit status. `arguments` are the command line's, which
    each copy gets too. Raises SettingsError.
    """
    plans = plan_copies(settings, environment)
    given = {name: value for name, value in environment.items() if name != OURS}
    # All copies sign with one secret; otherwise none would accept the ids of another.
    given[SECRET] = settings.server.session_secret or secrets.token_urlsafe(32)
    given["PYTHONUNBUFFERED"] = "1"
    is_json = settings.server.log_format == "json"
    copies = [
        CopyProcess(
            plan,
            [*arguments, "--replicas=1"],
            given,
            drain_s=settings.cluster.drain_s,
            say=_say_json if is_json else _say,
        )
        for plan in plans
    ]
    logger.info("starting %d copies", len(copies))
    return await _run(copies, listener)


async def _run(copies: Sequence[CopyProcess], listener: socket.socket) -> int:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    replacing = _Replacing(copies)
    loop.add_signal_handler(signal.SIGHUP, replacing.begin)
    living = [asyncio.create_task(copy.run()) for copy in copies]
    accepting = asyncio.create_task(Router(copies).accept(listener))
    told = asyncio.create_task(stopping.wait())
    status = 0
    try:
        done, _ = await asyncio.wait(
            [told, accepting, *living], return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
    except CannotStart:
        status = WRONG_SETTINGS
    finally:
        accepting.cancel()
        told.cancel()
        replacing.stop()
        listener.close()
        await asyncio.gather(*(copy.end() for copy in copies))
        for task in living:
            task.cancel()
        await asyncio.gather(*living, accepting, told, return_exceptions=True)
    return status


class _Replacing:
    """Replaces all copies, one after the other; a second call meanwhile does nothing."""

    def __init__(self, copies: Sequence[CopyProcess]) -> None:
        self._copies = copies
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._replace())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _replace(self) -> None:
        for copy in self._copies:
            logger.info("replacing copy %s", copy.name)
            await copy.replace()
        logger.info("all copies are replaced")


def _say(name: str, line: bytes) -> None:
    print(f"copy {name} | {line.decode('utf-8', 'replace')}", flush=True)


def _say_json(name: str, line: bytes) -> None:
    """The copy's object with its name; what is none becomes one."""
    text = line.decode("utf-8", "replace")
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        facts = {"message": text}
    print(json.dumps({"copy": name, **facts}, ensure_ascii=False), file=sys.stderr, flush=True)
