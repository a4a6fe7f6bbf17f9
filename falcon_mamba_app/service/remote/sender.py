"""Sends a request to an OpenAI-compatible server, and again without fields that it has refused.

The user did not ask for the figures of a stream, or for a penalty of 0. Such fields are left out if
the server refuses them, and this is remembered. Fields that the user asked for stay, and their
refusal is the answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from falcon_mamba_app.errors import NotFound, PromptTooLong, SettingsError
from falcon_mamba_app.protocol import GenerationRequest
from falcon_mamba_app.service.remote.wire import (
    Backend,
    error_from,
    not_asked_for,
    request_body,
)

logger = logging.getLogger(__name__)

# The first token of a long prompt may take minutes, and other servers send nothing meanwhile.
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
SESSION_HEADER = "x-session-id"
MAX_ATTEMPTS = 4  # per request; each has fewer fields than the one before
REFUSALS = (400, 422)  # the statuses for unknown fields
# Newer servers of OpenAI accept only the newer name of the length limit, and say so.
NEWER_NAMES = {"max_tokens": "max_completion_tokens"}
# A server may close an idle connection at the moment of its next use.
JUST_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)

Changes = Mapping[str, str | None]  # per field: the name to send instead, None to leave it out


class Sender:
    """Sends requests through one client to one server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._changes: dict[str, str | None] = {}  # that the server is known to need

    @asynccontextmanager
    async def answer_to(
        self, request: GenerationRequest, backend: Backend
    ) -> AsyncIterator[httpx.Response]:
        """The server's answer, its body not yet read. Raises the error that the server reports."""
        path, body = request_body(request, backend)
        spare = not_asked_for(request)
        changes = {n: new for n, new in self._changes.items() if new is not None or n in spare}
        for _ in range(MAX_ATTEMPTS):
            headers = _routed(request.session_id)
            async with self._sent(path, _changed(body, changes), headers) as response:
                if response.is_success:
                    self._remember(changes)
                    yield response
                    return
                refusal = await response.aread()
            more = _changes_for(
                response.status_code, refusal, of=_changed(body, changes), can_leave_out=spare
            )
            if not more:
                break
            changes |= more
        raise error_from(response.status_code, refusal)

    @asynccontextmanager
    async def _sent(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        try:
            response = await self._send(path, body, headers)
        except JUST_CLOSED:
            response = await self._send(path, body, headers)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> httpx.Response:
        request = self._client.build_request("POST", path, json=body, headers=headers)
        return await self._client.send(request, stream=True)

    def _remember(self, changes: Changes) -> None:
        new = changes.keys() - self._changes.keys()
        if new:
            names = ", ".join(sorted(new))
            logger.warning("the server behind --backend-url takes no %s; going on without", names)
            self._changes.update(changes)


def _routed(session_id: str | None) -> dict[str, str]:
    """The header by which routers before several servers send a session to one of them, also where
    those servers take no `prompt_cache_key`. An id is as secret as in the body.
    """
    is_sendable = session_id is not None and session_id.isascii() and session_id.isprintable()
    return {SESSION_HEADER: session_id} if session_id and is_sendable else {}


def _changed(body: dict[str, Any], changes: Changes) -> dict[str, Any]:
    named = {changes.get(name, name): value for name, value in body.items()}
    return {name: value for name, value in named.items() if name is not None}


def _changes_for(
    status: int, refusal: bytes, *, of: dict[str, Any], can_leave_out: Collection[str]
) -> dict[str, str | None]:
    """The changes after a refusal; none if they would not help.

    A refusal that names no field of the body may mean any field: then all optional ones are left
    out.
    """
    error = error_from(status, refusal)
    if status not in REFUSALS or isinstance(error, PromptTooLong | NotFound):
        return {}
    words = set(re.findall(r"\w+", refusal.decode(errors="replace")))
    newer = {old: new for old, new in NEWER_NAMES.items() if old in of and {old, new} <= words}
    if newer:
        return dict(newer)
    named = [name for name in of if name in words]
    spare = [name for name in of if name in can_leave_out]
    return {name: None for name in spare if name in named or not named}


def make_client(
    backend_url: str, api_key: str | None, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """A client of the server, with its key. Raises SettingsError for an invalid address."""
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}".encode()}
    try:
        return httpx.AsyncClient(
            base_url=backend_url,
            headers=headers,  # type: ignore[arg-type]
            timeout=TIMEOUT,
            follow_redirects=True,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            transport=transport,
        )
    except httpx.InvalidURL as error:
        raise SettingsError(f"--backend-url is no URL: {error}") from error
