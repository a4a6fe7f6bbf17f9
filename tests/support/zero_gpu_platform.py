"""Hugging Face's own `spaces` package at work on a machine without a GPU.

`DeviceApi` answers what the platform's device service would. Run as a program this is the app as on
ZeroGPU: everything of `spaces` is real but the hardware, for which the CPU stands in.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

ROOT = Path(__file__).parents[2]


class DeviceApi:
    """Lends a GPU for the asking until `is_spent`; `asked` has all its questions in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.is_spent = False
        self.num_lent = 0
        self._more = threading.Condition()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, object]]:
        with self._more:
            self.asked.append((path, query))
            if path == "/schedule" and self.is_spent:
                return 429, {"left": 10, "wait": "PT1H"}
            self.num_lent += {"/schedule": 1, "/release": -1}.get(path, 0)
            self._more.notify_all()
        if path != "/schedule":
            return 200, {}
        return 200, {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": "token"}

    def all_back(self) -> int:
        """How many questions there were, once every loan has come back.

        A loan comes back a moment after the reply that it was for.
        """
        with self._more:
            assert self._more.wait_for(lambda: not self.num_lent, 60), "A loan did not come back"
            return len(self.asked)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Its address, while it serves."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlparse(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                status, body = api.answer(url.path, query)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Nothing: `asked` keeps it."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


def space_variables(device_api: str) -> dict[str, str]:
    """What the platform sets for a Space on ZeroGPU."""
    return {
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/falcon-mamba",
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": device_api,
        "GRADIO_SERVER_NAME": "127.0.0.1",
    }


@contextmanager
def running_space(
    device_api: DeviceApi, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The app as on ZeroGPU, and its address, once it has printed that to `log`. While there is a
    file "slow" beside the log, each step takes half a second.
    """
    with device_api.serve() as address, log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "--model", "nano", "--port", "0", "--kernels", "reference"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **space_variables(address),
                "PYTHONUNBUFFERED": "1",
                "SLOW_WHILE": str(log.with_name("slow")),
            },
            start_new_session=True,
        )
        try:
            while not (found := re.search(r"is at (http://\S+)\n", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield process, found[1]
        finally:
            # With the process that it has forked to wait for turns.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _replace_the_hardware() -> None:
    """Make torch pass for one with CUDA, and a forked process find its GPU in the CPU."""
    import torch

    torch.version.cuda = torch.version.cuda or "12.8"
    # Builtins, because `spaces` pickles it: bool() is False, as it is before CUDA is touched.
    cuda: Any = torch.cuda
    cuda._is_in_bad_fork = bool
    if not hasattr(torch._C, "_cuda_init"):
        native: Any = torch._C
        native._cuda_init = bool
    import spaces.zero.wrappers as wrappers

    wrappers.torch.init = lambda uuid: None
    wrappers.torch.move = lambda callback=None: None
    from falcon_mamba_app.service.local.startup import Startup

    startup: Any = Startup
    build_engine = startup.build_engine

    def build_on_the_cpu(self: Any, model: Any, **options: Any) -> Any:
        self.placement = replace(self.placement, device=torch.device("cpu"))
        engine = build_engine(self, model, **options)
        step = engine.step

        def paced_step() -> Any:
            if Path(os.environ["SLOW_WHILE"]).exists():
                time.sleep(0.5)
            return step()

        engine.step = paced_step
        return engine

    startup.build_engine = build_on_the_cpu


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    _replace_the_hardware()
    sys.argv[0] = "app.py"
    runpy.run_path("app.py", run_name="__main__")
