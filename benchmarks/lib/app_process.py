"""The app in a process of its own, with the bundled model, on a free port of this machine."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import httpx
import psutil

ROOT = Path(__file__).parents[2]
# What is kept is never given back, and would go to the folder of whoever measures.
KEPT_NOWHERE = ("--keep-conversations=off", "--state-store=off")
BASIC = ("--port=0", "--model=nano", "--device=cpu", *KEPT_NOWHERE)


class App:
    """Its output is in a file."""

    def __init__(self, log: IO[str], *options: str) -> None:
        self._log = log
        self.process = subprocess.Popen(
            [sys.executable, "app.py", *BASIC, *options],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.usage = psutil.Process(self.process.pid)

    async def ready(self) -> httpx.AsyncClient:
        """A client of the app, once it answers."""
        while not (found := re.search(r"http://\S+", self.output)):
            assert self.process.poll() is None, self.output
            await asyncio.sleep(0.1)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        http = httpx.AsyncClient(base_url=found[0], timeout=60, limits=limits)
        while not await self._serves(http):
            assert self.process.poll() is None, self.output
            await asyncio.sleep(0.1)
        return http

    async def _serves(self, http: httpx.AsyncClient) -> bool:
        try:
            return (await http.get("/health")).status_code == 200
        except httpx.TransportError:  # whether it has ended says why
            return False

    @property
    def output(self) -> str:
        return Path(self._log.name).read_text(encoding="utf-8")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
