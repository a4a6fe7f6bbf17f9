"""A model hub on this machine that serves one folder, spoken to by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HUB_ID = "tester/tiny-mamba"
COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Serves `source` as HUB_ID, with huggingface_hub's endpoint and cache pointed here."""

    def __init__(self, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = source
        self._monkeypatch = monkeypatch
        self.downloaded: list[str] = []
        self.ranges: list[str | None] = []  # that weights were asked for
        self._breaks: list[int] = []
        self._failure: tuple[int, str] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        url = f"http://127.0.0.1:{self._server.server_port}"
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fail(self, status: int, code: str) -> None:
        """Answer everything with this status and the hub's own error code."""
        self._failure = status, code

    def break_off(self, *num_bytes: int) -> None:
        """Hang up after so many bytes of the next answers with weights, one after the other."""
        self._breaks = list(num_bytes)
        self._monkeypatch.setattr("falcon_mamba_app.checkpoint.download.PAUSE_S", 0)

    def lose_files(self) -> None:
        """From now on tell what there is, and be out of reach for every file."""
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        url = "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE"
        self._monkeypatch.setattr(url, template)
        self._monkeypatch.setattr("time.sleep", lambda seconds: None)  # it waits 23 s in between

    def close(self) -> None:
        """Hang up. Requests from now on find nobody."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _model_info(self) -> bytes:
        siblings = [
            {"rfilename": path.name, "size": path.stat().st_size}
            for path in sorted(self.source.iterdir())
        ]
        info = {"id": HUB_ID, "modelId": HUB_ID, "sha": COMMIT, "siblings": siblings}
        return json.dumps(info).encode()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if hub._failure:
                    status, code = hub._failure
                    self._answer(b"", status, {"X-Error-Code": code})
                elif self.path.startswith("/api/models/"):
                    self._answer(hub._model_info(), 200, {})
                else:
                    self._file(self.path.rpartition("/")[2])

            do_HEAD = do_GET

            def _file(self, name: str) -> None:
                path = hub.source / name
                if not path.is_file():
                    self._answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
                    return
                data = path.read_bytes()
                if self.command == "GET":
                    hub.downloaded.append(name)
                etag = hashlib.sha256(data).hexdigest()
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                if self.command == "HEAD" or path.suffix not in (".gguf", ".safetensors"):
                    self._answer(data, 200, headers)
                    return
                asked = self.headers.get("Range")
                hub.ranges.append(asked)
                first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                if asked:
                    headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
                self._answer(data[first:], 206 if asked else 200, headers)

            def _answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    num_bytes = hub._breaks.pop(0) if hub._breaks and hub.ranges else len(data)
                    self.wfile.write(data[:num_bytes])

            def log_message(self, *args: object) -> None:
                pass

        return Handler
