"""The GenerationService in front of another server that speaks OpenAI's API.

That server is a vLLM cluster, or another copy of this app, which also carries sessions and reports
its model. Values that a server does not report stay None. The API key is only in the requests'
headers: no message and no log line holds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from urllib.parse import quote

import httpx

from falcon_mamba_app.errors import (
    BackendError,
    EngineFailure,
    FalconMambaError,
    InvalidRequest,
    NotReady,
    NotSupported,
    Overloaded,
    SettingsError,
)
from falcon_mamba_app.protocol import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    ServiceStats,
    ServiceStatus,
    StateInspection,
    StateLook,
    Tokenizer,
)
from falcon_mamba_app.service.remote.event_stream import events as events_in
from falcon_mamba_app.service.remote.reply import RemoteReply
from falcon_mamba_app.service.remote.sender import Sender, make_client
from falcon_mamba_app.service.remote.wire import Backend, choose_model, error_from

logger = logging.getLogger(__name__)
# At INFO httpx logs every address; the addresses of sessions are secret.
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_PAUSE_S, CLOSE_PATIENCE_S = 5.0, 2.0
LAST_WORDS_PATIENCE_S = 5.0  # for figures after a finished reply; then the connection is closed

UNREACHABLE = (httpx.HTTPError, httpx.StreamError)
# The errors of reading a value of unexpected shape.
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)


class RemoteService:
    """One model of one server. `transport` replaces the network in tests.

    `connect_patience_s` applies to a server that does not answer yet, `loading_patience_s` to one
    that reports that it is loading.
    """

    def __init__(
        self,
        backend_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        max_new_tokens: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        connect_patience_s: float = 30.0,
        loading_patience_s: float = 900.0,
        first_pause_s: float = 0.5,
    ) -> None:
        self.tokenizer: Tokenizer | None = None  # the server's own
        self._wanted_model = model
        self._api_key = api_key
        self._max_new_tokens = max_new_tokens
        self._connect_patience_s = connect_patience_s
        self._loading_patience_s = loading_patience_s
        self._first_pause_s = first_pause_s
        self._client = make_client(backend_url, api_key, transport)
        self._sender = Sender(self._client)
        self._address = str(self._client.base_url.copy_with(userinfo=b"")).rstrip("/")
        self._status: ServiceStatus = "loading"
        self._detail = f"waiting for the server at {self._address}"
        self._backend: Backend | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forgetting: set[Future[bool]] = set()
        self._running = 0
        self._requests_total = 0
        self._completion_tokens_total = 0
        self._prompt_tokens_total: int | None = 0
        self._reused_tokens_total: int | None = 0

    async def start(self) -> None:
        """Wait until the server lists its models. Raises BackendError if it never does."""
        self._loop = asyncio.get_running_loop()
        try:
            backend = await self._wait_for_backend()
        except FalconMambaError as error:
            self._status, self._detail = "failed", str(error)
            raise
        limits = [n for n in (backend.model.max_new_tokens, self._max_new_tokens) if n is not None]
        model = replace(backend.model, max_new_tokens=min(limits, default=None))
        self._backend = replace(backend, model=model)
        self._status, self._detail = "ready", ""
        logger.info("serving %s from %s (%s)", model.id, self._address, backend.owner)

    async def _wait_for_backend(self) -> Backend:
        started_s, pause_s = time.monotonic(), self._first_pause_s
        while True:
            try:
                async with self._foreign_errors():
                    response = await self._client.get("models")
                    if response.status_code == 404:
                        raise SettingsError(
                            f"{self._address} has no /models; --backend-url usually ends in /v1"
                        )
                    self._raise_for(response.status_code, response.content)
                    return choose_model(response.json(), self._wanted_model)
            except (NotReady, Overloaded, _Unreachable) as error:
                reason = error
            is_answering = not isinstance(reason, _Unreachable)
            patience_s = self._loading_patience_s if is_answering else self._connect_patience_s
            if time.monotonic() - started_s + pause_s > patience_s:
                raise BackendError(str(reason)) from reason
            self._detail = f"waiting for the server at {self._address}: {reason}"
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """The events of one reply; closing the generator closes the connection."""
        backend = self._ready_backend()
        limit, asked = backend.model.max_new_tokens, request.sampling.max_new_tokens
        if limit is not None and asked > limit:
            raise InvalidRequest(
                f"max_new_tokens is {asked}; this server writes at most {limit}",
                param="max_new_tokens",
            )
        reply = RemoteReply(request)
        self._running += 1
        self._requests_total += 1
        try:
            async with self._foreign_errors():
                async with aclosing(self._events(request, backend, reply)) as events:
                    async for event in events:
                        yield event
                for event in reply.finish():
                    if isinstance(event, Finished):
                        self._count(event)
                    yield event
        finally:
            self._running -= 1

    async def _events(
        self, request: GenerationRequest, backend: Backend, reply: RemoteReply
    ) -> AsyncGenerator[GenerationEvent, None]:
        """All events but the last. A failure after the finish reason is ignored."""
        async with self._sender.answer_to(request, backend) as response:
            if request.score_prompt is not None:
                await response.aread()
                for event in reply.read_scored(response.json()):
                    yield event
                return
            async with aclosing(events_in(response.aiter_bytes())) as parts:
                while not reply.is_complete:
                    patience_s = LAST_WORDS_PATIENCE_S if reply.has_reason else None
                    try:
                        async with asyncio.timeout(patience_s):
                            told = list(reply.read(await anext(parts)))
                    except StopAsyncIteration:
                        return
                    except (FalconMambaError, TimeoutError, *NONSENSE, *UNREACHABLE) as error:
                        if not reply.has_reason:
                            raise
                        logger.info("after the end of a reply: %s", type(error).__name__)
                        return
                    for event in told:
                        yield event

    async def export_state(self, session_id: str, token_ids: Sequence[int] | None = None) -> bytes:
        """The session's newest state, from a copy of this app. Raises NotSupported for other
        servers, and for the state of an earlier moment.
        """
        if token_ids is not None:
            raise NotSupported("the server behind this one has the state of an earlier moment")
        async with self._foreign_errors():
            response = await self._client.get(self._session_path(session_id) + "/state")
            self._raise_for(response.status_code, response.content)
            return response.content

    async def import_state(self, session_id: str, data: bytes) -> int:
        """Send a state to a copy of this app; returns how many tokens it has read."""
        async with self._foreign_errors():
            path = self._session_path(session_id) + "/state"
            response = await self._client.put(path, content=data)
            self._raise_for(response.status_code, response.content)
            return int(response.json()["num_tokens"])

    async def sketch(self, session_id: str) -> str | None:
        return None  # the state is elsewhere

    async def inspect_state(self, session_id: str, look: StateLook) -> StateInspection:
        raise NotSupported("the server behind this one has the state; look into it there")

    async def publish_state(self, session_id: str) -> int:
        return 0  # no state lies here

    async def pin_state(self, session_id: str, token_ids: Sequence[int]) -> int:
        return 0

    async def unpin_state(self, session_id: str, token_ids: Sequence[int]) -> None:
        """Nothing to let go of."""

    def forget(self, session_id: str) -> Future[bool]:
        """Ask a copy of this app to drop the session, without waiting. From any thread."""
        try:
            self._ready_backend()
            path = self._session_path(session_id)
        except FalconMambaError as error:
            refused: Future[bool] = Future()
            refused.set_exception(error)
            return refused
        assert self._loop is not None, "ready, and never started"
        asked = asyncio.run_coroutine_threadsafe(self._forget(path), self._loop)
        self._forgetting.add(asked)
        asked.add_done_callback(self._forgetting.discard)
        return asked

    async def _forget(self, path: str) -> bool:
        try:
            async with self._foreign_errors():
                response = await self._client.delete(path)
                if response.status_code == httpx.codes.NOT_FOUND:
                    return False
                self._raise_for(response.status_code, response.content)
                return True
        except FalconMambaError as error:
            logger.warning("a session could not be forgotten: %s", error)
            raise

    def stats(self) -> ServiceStats:
        """The counts of requests through this service; the server's own load is not known."""
        return ServiceStats(
            status=self._status,
            detail=self._detail,
            model=self._backend.model if self._backend else None,
            running=self._running,
            requests_total=self._requests_total,
            prompt_tokens_total=self._prompt_tokens_total,
            reused_tokens_total=self._reused_tokens_total,
            completion_tokens_total=self._completion_tokens_total,
        )

    async def close(self) -> None:
        """Send all pending requests to forget sessions, then close all connections."""
        self._status, self._detail = "failed", "the service is closed"
        waiting = [asyncio.wrap_future(asked) for asked in self._forgetting]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await asyncio.gather(*waiting, return_exceptions=True)
        await self._client.aclose()

    def _ready_backend(self) -> Backend:
        if self._status == "failed":
            raise EngineFailure(self._detail)
        if self._backend is None:
            raise NotReady(self._detail)
        return self._backend

    def _session_path(self, session_id: str) -> str:
        if self._backend is None or not self._backend.has_sessions:
            raise NotSupported("the server behind --backend-url has no sessions to take or give")
        return "sessions/" + quote(session_id, safe="")

    def _raise_for(self, status: int, data: bytes) -> None:
        if not httpx.codes.is_success(status):
            raise self._without_key(error_from(status, data))

    def _without_key(self, error: FalconMambaError) -> FalconMambaError:
        """`error`, its sentence free of the key, which some servers quote."""
        if self._api_key:
            error.args = tuple(str(arg).replace(self._api_key, "***") for arg in error.args)
        return error

    @asynccontextmanager
    async def _foreign_errors(self) -> AsyncIterator[None]:
        """Translate the errors of httpx and of malformed answers to ours."""
        try:
            yield
        except FalconMambaError as error:
            self._without_key(error)
            raise
        except UNREACHABLE as error:
            if self._status == "failed":
                raise EngineFailure("the service was closed") from error
            is_late = isinstance(error, httpx.TimeoutException)
            why = "did not answer in time" if is_late else "cannot be reached"
            raise _Unreachable(f"the server at {self._address} {why}") from error
        except NONSENSE as error:
            if self._status == "failed":  # httpx refuses a closed client with a RuntimeError
                raise EngineFailure("the service was closed") from error
            raise BackendError(f"the server at {self._address} answered nonsense") from error

    def _count(self, finished: Finished) -> None:
        self._completion_tokens_total += finished.completion_tokens
        self._prompt_tokens_total = _sum(self._prompt_tokens_total, finished.prompt_tokens)
        self._reused_tokens_total = _sum(self._reused_tokens_total, finished.reused_tokens)


class _Unreachable(BackendError):
    """The connection failed, as while the server starts."""


def _sum(total: int | None, count: int | None) -> int | None:
    """The sum, or None if one of the two is not known."""
    return None if total is None or count is None else total + count
