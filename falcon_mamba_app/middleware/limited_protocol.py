"""The reader of HTTP: what one connection may take of the event loop, of memory, and of time.

uvicorn itself reads 256 KiB of a connection at once, whatever they hold, and waits for a head, and
for a reader of its answer, for ever. httptools has no limits of its own; they are all here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.http.errors import HttpError
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.middleware.connections import Connections

# Read at once where each byte may be a piece of its own: 0.2 ms of chunks of one byte. Two hundred
# connections that send such at the same time hold the loop for 40 ms.
MAX_READ_BYTES = 4 * 2**10
# And of a body whose length was declared, which is not looked at.
MAX_BODY_READ_BYTES = 256 * 2**10
# A request's bytes that are not body: its head, and what stands between chunks and after them.
MAX_HEAD_BYTES = 16 * 2**10
# So much of each byte of a body may be frame: a chunk's is 5 bytes or more, so chunks of
# 24 bytes pass. Smaller ones cost more than they bring.
MAX_FRAME = 0.25
MAX_HEADERS = 128
MAX_PIPELINED = 8
# The headers that say where a body ends.
FRAME = (b"content-length", b"transfer-encoding")
# A connection closed while its client still sends takes the answer with it.
LINGER_S = 2.0

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"This server has as many connections as it allows; try again in a few seconds.\n"
)


class NotHttp(HttpError):
    """What came is no HTTP request."""

    http_status = 400


class HeadTooLarge(HttpError):
    """The head of the request has more bytes or headers than are read."""

    http_status = 431
    code = "request_header_fields_too_large"


class ChunksTooSmall(HttpError):
    """The body comes in pieces that cost more than they bring."""

    http_status = 400
    code = "chunks_too_small"


class TooManyAhead(Exception):
    """More requests wait on one connection than are kept."""


def limited_protocol(
    connections: Connections, *, header_timeout_s: float, reader_timeout_s: float
) -> type[asyncio.Protocol]:
    """uvicorn's protocol with a limit on connections, on what is read at once and on what is not
    body; and deadlines: for each request's head, with what is left of an answered body before it,
    and for a reader to take more of its answer once the buffers are full.
    """

    class LimitedProtocol(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _reading: asyncio.TimerHandle | None = None
        _address = ""
        _is_refused = False
        _is_in_head = True
        _num_bytes = 0  # of the message that is being read: in all, and of its body
        _num_body_bytes = 0
        _num_left = 0  # of a body of declared length
        _is_muted = False
        _offered_frame: Sequence[tuple[bytes, bytes]] = ()

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.max_size = MAX_READ_BYTES
            self._address = self.client[0] if self.client else ""
            if connections.open(self._address):
                self._expect_head()
            else:
                transport.write(FULL)
                transport.close()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing() or self._is_refused:
                return
            self._unset_keepalive_if_required()
            self._num_bytes += len(data)
            try:
                self._parse(data)
                self._check_frame()
            except httptools.HttpParserError as error:
                reason = error.__context__
                if isinstance(reason, TooManyAhead):
                    self._end_with_those()
                elif isinstance(reason, HttpError):
                    self._refuse(reason)
                else:
                    self._refuse(NotHttp("this is no HTTP request"))
            except HttpError as error:
                self._refuse(error)
            else:
                self._read_next()

        def _parse(self, data: bytes) -> None:
            while data:
                try:
                    return self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as error:
                    data = data[error.args[0] :]
                    self._go_on_with_body()

        def _go_on_with_body(self) -> None:
            """An upgrade was asked for, to nothing that is offered here, so that the request is
            answered as any other is. The parser takes what follows the head for the new protocol;
            another one, which is told only the body's frame, reads it.
            """
            if not self._offered_frame:
                return
            frame = b"".join(b"%s: %s\r\n" % header for header in self._offered_frame)
            self.parser = httptools.HttpRequestParser(self)
            self._is_muted = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + frame + b"\r\n")
            self._is_muted, self._offered_frame = False, ()

        def _read_next(self) -> None:
            """How much is read at once, and by when."""
            wanted = min(max(self._num_left, MAX_READ_BYTES), MAX_BODY_READ_BYTES)
            self.transport.max_size = wanted  # type: ignore[attr-defined]  # asyncio's own
            is_answered = self.cycle is None or self.cycle.response_complete
            if not is_answered:
                self._expect_nothing()
            elif self._deadline is None:  # the next request, or the rest of a body
                self._expect_head()

        def _check_frame(self) -> None:
            """Raises HeadTooLarge, ChunksTooSmall."""
            num_other = self._num_bytes - self._num_body_bytes - MAX_FRAME * self._num_body_bytes
            if num_other <= MAX_HEAD_BYTES:
                return
            if self._is_in_head:
                raise HeadTooLarge(
                    f"the head of the request has more than {MAX_HEAD_BYTES} bytes, the most that"
                    " is read"
                )
            raise ChunksTooSmall("the body comes in chunks of a few bytes; send larger ones")

        def on_message_begin(self) -> None:
            if self._is_muted:
                return
            super().on_message_begin()
            self._is_in_head = True
            self._num_bytes = self._num_body_bytes = self._num_left = 0

        def on_url(self, url: bytes) -> None:
            if not self._is_muted:
                super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._is_in_head:
                return  # muted, or after a body: nobody asked for it, and it is no part of the head
            if len(self.headers) >= MAX_HEADERS:
                raise HeadTooLarge(f"the request has more than {MAX_HEADERS} headers")
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            if self._is_muted:
                return
            if len(self.pipeline) >= MAX_PIPELINED:
                raise TooManyAhead
            self._is_in_head = False
            self._num_left = _declared_bytes(self.headers)
            if self.parser.should_upgrade():
                self._offered_frame = [header for header in self.headers if header[0] in FRAME]
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._num_body_bytes += len(body)
            self._num_left = max(0, self._num_left - len(body))
            super().on_body(body)

        def on_message_complete(self) -> None:
            if self._offered_frame and not self._is_muted:
                return  # its body follows
            super().on_message_complete()
            self._is_in_head = True
            self._num_bytes = self._num_body_bytes = self._num_left = 0

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            connections.close(self._address)
            self._is_read_again()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self.loop.call_later(reader_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._is_read_again()

        def _refuse(self, error: FalconMambaError) -> None:
            """The last answer of this connection; none where one is on its way."""
            self._is_refused = True
            self._expect_nothing()
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete:
                if cycle.response_started or self.pipeline:
                    self.transport.abort()
                    return
                cycle.disconnected = True
                cycle.message_event.set()
            self.transport.write(_last_answer(error, (self.scope or {}).get("path", "")))
            self.transport.write_eof()
            self._deadline = self.loop.call_later(LINGER_S, self.transport.abort)

        def _end_with_those(self) -> None:
            """Answer the requests that wait, and none after them: its client may send them anew."""
            self._is_refused = True
            self.cycle.keep_alive = False

        def _is_read_again(self) -> None:
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(header_timeout_s, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return LimitedProtocol


def _declared_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    """The length of the body as declared; 0 for none, or chunks."""
    lengths = [value for name, value in headers if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def _last_answer(error: FalconMambaError, path: str) -> bytes:
    answer = refusal(error, path)
    head = [b"HTTP/1.1 %d \r\nConnection: close" % answer.status_code]
    head += [b"%s: %s" % header for header in answer.raw_headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(answer.body)
