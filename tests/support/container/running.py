"""The image's app at work in its root: healthy, answering, and gone when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.support.container.dockerfile import Instructions, health_command

ADDRESS = "http://127.0.0.1:7860"
MAX_START_S = 180.0  # on a slow machine; what it took is printed
MAX_STOP_S = 10.0  # then `docker stop` kills


class Image(Protocol):
    """What a Stage is once it is built."""

    @property
    def root(self) -> Path: ...
    def command(self, argv: Sequence[str]) -> list[str]: ...


class Container:
    """The entry point as process 1, with a loopback of its own and no other network."""

    def __init__(self, image: Image, entrypoint: Sequence[str]) -> None:
        shm = f"{image.root}/dev/shm"  # Docker gives every container one
        prepare = f"ip link set lo up && mkdir -p {shm} && mount -t tmpfs shm {shm}"
        inner = ["sh", "-c", f'{prepare} && exec "$@"', "sh", *image.command(entrypoint)]
        namespaces = ["--net", "--pid", "--fork", "--kill-child"]
        self._image = image
        self._process = subprocess.Popen(
            ["unshare", *namespaces, f"--mount-proc={image.root}/proc", *inner]
        )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        self.pid = int(found[0])

    def field(self, name: str) -> str:
        """Of the process's status, as it sees itself: its number or its user."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        values = next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))
        return values[-1]

    def enter(self, argv: Sequence[str]) -> list[str]:
        """A command of this machine, on the container's loopback."""
        return ["nsenter", f"--target={self.pid}", "--net", *argv]

    def execute(self, argv: Sequence[str]) -> int:
        """What `docker exec` does; the command's exit status."""
        entered = ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount"]
        return subprocess.run([*entered, *self._image.command(argv)], check=False).returncode

    def fetch(self, path: str, *options: str) -> str:
        """The body that curl gets."""
        command = self.enter(["curl", "-sS", "--max-time", "30", f"{ADDRESS}{path}", *options])
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def wait_until(self, path: str, code: str) -> float:
        """Seconds until the path answers with that status."""
        started_s = time.monotonic()
        while self.fetch(path, "-o", "/dev/null", "-w", "%{http_code}") != code:
            assert self._process.poll() is None, "the app has ended"
            assert time.monotonic() - started_s < MAX_START_S, f"{path} never answered {code}"
            time.sleep(0.2)
        return time.monotonic() - started_s

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # and with it, by --kill-child, the app
        self._process.wait()

    def stop(self, with_signal: signal.Signals) -> tuple[float, int]:
        """Seconds until it was gone, and its exit status."""
        started_s = time.monotonic()
        os.kill(self.pid, with_signal)
        status = self._process.wait(timeout=MAX_STOP_S)
        return time.monotonic() - started_s, status


def check_running(image: Image, entrypoint: Sequence[str], pairs: Instructions) -> None:
    """Start, ask, stop; prints what it saw. Raises at the first thing that is wrong."""
    with Container(image, entrypoint) as container:
        print(f"healthy after {container.wait_until('/health', '200'):.1f} s")
        pid, uid = container.field("NSpid"), container.field("Uid")
        assert (pid, uid) == ("1", "1000"), f"it is process {pid} of user {uid}"
        assert container.execute(health_command(pairs)) == 0, "HEALTHCHECK calls it unhealthy"
        message = {"role": "user", "content": "Hello!"}
        answer = json.loads(
            container.fetch("/v1/chat/completions", "--json", json.dumps({"messages": [message]}))
        )
        print("reply:", answer["choices"][0]["message"]["content"])
        assert "Falcon Mamba" in container.fetch("/")
        pages = _open_pages(container)
        seconds, code = container.stop(signal.SIGTERM)
        print(f"stopped in {seconds:.1f} s with {len(pages)} pages open, status {code}")
        for page in pages:
            page.wait(timeout=5)
    with Container(image, entrypoint) as container:
        time.sleep(1.0)
        seconds, code = container.stop(signal.SIGTERM)
        print(f"stopped in {seconds:.1f} s while starting, status {code}")


def _open_pages(container: Container) -> list[subprocess.Popen[bytes]]:
    """Two pages that hold their connection, and a reply in the middle of a sentence."""
    body = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    requests = [
        ["/gradio_api/heartbeat/first"],
        ["/gradio_api/heartbeat/second"],
        ["/v1/completions", "--json", json.dumps(body)],
    ]
    pages = [
        subprocess.Popen(
            container.enter(["curl", "-sSN", "--max-time", "60", f"{ADDRESS}{path}", *options]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for path, *options in requests
    ]
    time.sleep(1.0)
    assert all(page.poll() is None for page in pages), "a page did not stay open"
    return pages
