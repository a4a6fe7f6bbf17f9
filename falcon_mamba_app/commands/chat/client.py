"""A server of ours, seen from the terminal: replies as they are written, over /v1/responses."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from falcon_mamba_app.errors import BackendError

Json = dict[str, Any]

SETTLES_S = 5.0
TIMEOUT = httpx.Timeout(10.0, read=3_600.0)


class Client:
    """Raises BackendError with one sentence for whatever goes wrong."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """`url` with or without /v1."""
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def close(self) -> None:
        self._http.close()

    def health(self) -> Json:
        """The server's own account of itself; status "unreachable" where there is none."""
        try:
            answer = self._http.get("/health")
            return dict(answer.json())
        except (httpx.HTTPError, ValueError):
            return {"status": "unreachable"}

    def model(self) -> Json:
        """The model, as /v1/models tells it."""
        models = self._answer("GET", "/v1/models")["data"]
        if not models:
            raise BackendError(f"{self.url} has no model")
        return dict(models[0])

    def response(self, response_id: str) -> Json:
        """A response once it is no longer being written."""
        end_s = time.monotonic() + SETTLES_S
        while True:
            found = self._answer("GET", f"/v1/responses/{response_id}")
            if found["status"] not in ("queued", "in_progress") or time.monotonic() > end_s:
                return found
            time.sleep(0.05)

    def reply(self, body: Json) -> Generator[Json, None, None]:
        """The events of a new response. Closing the generator ends the reply."""
        with (
            self._told_in_a_sentence(),
            self._http.stream("POST", "/v1/responses", json={**body, "stream": True}) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise _refused(answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def _answer(self, method: str, path: str) -> Json:
        with self._told_in_a_sentence():
            answer = self._http.request(method, path)
            if answer.status_code != 200:
                raise _refused(answer)
            return dict(answer.json())

    @contextmanager
    def _told_in_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise BackendError(f"{self.url} does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise BackendError(f"{self.url} is no server of this app: no JSON came") from error


def _refused(answer: httpx.Response) -> BackendError:
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"it answered with status {answer.status_code}"
    return BackendError(f"the server refused: {message}")
