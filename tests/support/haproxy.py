"""HAProxy with the committed configuration, before copies that run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"


@contextmanager
def haproxy(own_urls: dict[str, str]) -> Iterator[str]:
    """Its address. Raises FileNotFoundError where the program is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = {f"COPY_{name}": urlsplit(url).netloc for name, url in own_urls.items()}
    process = subprocess.Popen(
        [program, "-db", "-f", str(CONFIGURATION)],
        env={**os.environ, **addresses, "LISTEN": f"127.0.0.1:{port}"},
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "haproxy has ended"
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("haproxy does not listen")
