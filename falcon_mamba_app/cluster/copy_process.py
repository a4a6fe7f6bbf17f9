"""One copy as its parent sees it: a process that is started, watched, fed and ended.

A copy that dies is started again, later each time it dies soon. It keeps its name and, if nobody
takes it meanwhile, its own address, at which it is asked how it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from falcon_mamba_app.cluster.door import API, TAKEN, Inherited, send
from falcon_mamba_app.cluster.plans import Plan
from falcon_mamba_app.cluster.routing import Load

logger = logging.getLogger(__name__)

State = Literal["down", "starting", "ready", "silent", "draining"]
Health = Literal["ready", "starting", "failed"]

ASKED_EVERY_S, ANSWER_S = 1.0, 5.0
MAX_SILENT_S = 60.0  # of one that was ready
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
GOOD_LIFE_S = 60.0  # after which a death counts as the first one
END_S = 20.0  # beyond the drain
LAST_WORDS_S = 1.0
WRONG_SETTINGS = 2  # its exit status
QUESTION = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class CannotStart(Exception):
    """A copy refused its settings and has said why. The other copies would refuse them too."""


class CopyProcess:
    """`run` keeps it alive until it is cancelled; `hand` gives it a connection."""

    def __init__(
        self,
        plan: Plan,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        drain_s: float,
        say: Callable[[str, bytes], None],
    ) -> None:
        """`arguments` are those of the command line; `say` gets each line of its output."""
        self.name, self.load = plan.name, Load(plan.name)
        self.state: State = "down"
        self._arguments = [*arguments, *plan.arguments]
        self._environment = {**environment, **plan.environment}
        self._drain_s, self._say = drain_s, say
        self.address = ("127.0.0.1", 0)  # where the copy itself answers
        self._channel: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._handed: deque[asyncio.Future[bool]] = deque()  # and not taken yet
        self._has_been_ready = False
        self._is_wanted = True
        self._replaced = asyncio.Event()

    async def hand(self, kind: bytes, data: bytes, connection: socket.socket) -> bool:
        """Hand the copy a connection. False if it does not take it: another copy may."""
        if self._channel is None:
            return False
        try:
            send(self._channel, kind, data, connection)
        except OSError:  # it has ended, or does not read
            return False
        self._count(kind, 1)
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._handed.append(taken)
        return await taken

    async def run(self) -> None:
        """Start the copy, and again whenever it ends, until `end`. Raises CannotStart."""
        pause_s = FIRST_PAUSE_S
        while self._is_wanted:
            started_s = time.monotonic()
            status = await self._live()
            if not self._is_wanted:
                return
            if self.state == "draining":  # it was to be replaced
                continue
            if status == WRONG_SETTINGS and not self._has_been_ready:
                raise CannotStart
            if time.monotonic() - started_s > GOOD_LIFE_S:
                pause_s = FIRST_PAUSE_S
            logger.warning(
                "copy %s has ended (%s); it starts again in %.1f s",
                self.name,
                _ending(status),
                pause_s,
            )
            self.state = "down"
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def end(self) -> None:
        """End the copy for good, its replies after `drain_s` at the latest."""
        self._is_wanted = False
        await self._drain()

    async def replace(self) -> None:
        """End the copy, and return once its successor is ready. Other copies take its requests."""
        self._replaced.clear()
        await self._drain()
        await self._replaced.wait()

    async def _drain(self) -> None:
        process = self._process
        if process is None:
            return
        self.state = "draining"
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._drain_s + END_S)
        except TimeoutError:
            logger.warning("copy %s does not end; it is killed", self.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _live(self) -> int:
        """One life; its exit status."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, kept_open = os.pipe()
        listener = _bound(self.address)
        self.address = listener.getsockname()
        inherited = Inherited(theirs.fileno(), lifeline, listener.fileno())
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "falcon_mamba_app", "copy", str(inherited)),
                *self._arguments,
                env=self._environment,
                pass_fds=(inherited.channel, inherited.lifeline, inherited.listener),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C is the parent's to handle
            )
        finally:
            theirs.close()
            listener.close()  # without the copy, connections are refused
            os.close(lifeline)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._channel, self.state = ours, "starting"
        self.load.num_api = self.load.num_page = 0
        loop.add_reader(ours, self._hear)
        watching = asyncio.create_task(self._watch(self._process))
        passing = asyncio.create_task(self._pass_output(self._process))
        try:
            status = await self._process.wait()
            # What it has started may hold its output open.
            await asyncio.wait([passing], timeout=LAST_WORDS_S)
            return status
        finally:
            watching.cancel()
            passing.cancel()
            loop.remove_reader(ours)
            self._channel = None
            ours.close()
            self._take_back()
            os.close(kept_open)
            self._process = None

    def _hear(self) -> None:
        """Read a letter for each connection that was taken, and for each that has ended."""
        assert self._channel is not None
        try:
            letter = self._channel.recv(16)
        except BlockingIOError:
            return
        except OSError:
            letter = b""
        if letter == TAKEN:
            taken = self._handed.popleft()
            if not taken.done():
                taken.set_result(True)
        elif letter:
            self._count(letter, -1)
        else:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._take_back()

    def _take_back(self) -> None:
        """The copy has ended or is about to: other copies get its connections."""
        if self.state in ("ready", "starting", "silent"):
            self.state = "down"
        while self._handed:
            taken = self._handed.popleft()
            if not taken.done():
                taken.set_result(False)

    def _count(self, kind: bytes, number: int) -> None:
        if kind == API:
            self.load.num_api += number
        else:
            self.load.num_page += number

    async def _pass_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.read(2**16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._say(self.name, line)
            if len(rest) > 2**16:
                self._say(self.name, rest)
                rest = b""
        if rest:
            self._say(self.name, rest)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Poll the copy's health. A copy that does not answer for long is killed."""
        heard_s, was_ready = time.monotonic(), False
        while True:
            health = await self._ask()
            if self.state == "draining":
                return
            if health == "failed":
                break
            if health is not None:
                self.state, heard_s = health, time.monotonic()
            elif self.state == "ready":
                self.state = "silent"
            if health == "ready" and not was_ready:
                was_ready = self._has_been_ready = True
                self._replaced.set()
                logger.info("copy %s is ready, at http://%s:%d too", self.name, *self.address)
            if was_ready and time.monotonic() - heard_s > MAX_SILENT_S:
                break
            await asyncio.sleep(ASKED_EVERY_S if self.state == "ready" else ASKED_EVERY_S / 5)
        self.state = "silent"
        logger.warning("copy %s %s; it is ended", self.name, health or "does not answer any more")
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(END_S)
            process.kill()

    async def _ask(self) -> Health | None:
        """None without an answer."""
        writer = None
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(*self.address)
                writer.write(QUESTION)
                answer = await reader.read(2**16)
        except (OSError, TimeoutError):
            return None
        finally:
            if writer is not None:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200"):
            return "ready"
        with contextlib.suppress(ValueError, AttributeError):
            return "failed" if json.loads(body).get("status") == "failed" else "starting"
        return None


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket at the address, or at another port if that is taken; the copy begins to listen."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.bind((address[0], 0))
    return listener
