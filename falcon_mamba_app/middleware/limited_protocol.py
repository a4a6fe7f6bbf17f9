"""The reader of HTTP; it limits the loop's time, the memory and the duration of one connection.

uvicorn itself reads 256 KiB of a connection at once, whatever the content. It waits without limit
for a head, and for a reader of its answer. httptools has no limits either; all of them are here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.http.errors import HttpError
from falcon_mamba_app.http.refusals import refusal
from falcon_mamba_app.middleware.connections import Connections
from falcon_mamba_app.middleware.proxy_user import PEER
from falcon_mamba_app.middleware.turns import MAX_ENDED, FewATurn

# Bytes read at once if each byte may be a chunk: 0.2 ms of chunks of one byte. Two hundred
# connections that send these at the same time block the loop for 40 ms.
MAX_READ_BYTES = 4 * 2**10
# Bytes read at once of a body with a declared length, which needs no parsing.
MAX_BODY_READ_BYTES = 256 * 2**10
# The bytes of a request outside its body: the head, and the bytes between and after chunks.
MAX_HEAD_BYTES = 16 * 2**10
# The allowed bytes of frame per byte of body. A chunk's frame is 5 bytes or more, so chunks of 24
# bytes pass. Smaller chunks cost more than they carry.
MAX_FRAME = 0.25
MAX_HEADERS = 128
MAX_PIPELINED = 8
# The headers that determine the end of a body.
FRAME = (b"content-length", b"transfer-encoding")
# If a connection closes while its client still sends, the answer is lost.
LINGER_S = 2.0

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"This server has as many connections as it allows; try again in a few seconds.\n"
)


class NotHttp(HttpError):
    """The bytes are no HTTP request."""

    http_status = 400


class HeadTooLarge(HttpError):
    """The head of the request has too many bytes or headers."""

    http_status = 431
    code = "request_header_fields_too_large"


class ChunksTooSmall(HttpError):
    """The body comes in chunks that cost more than they carry."""

    http_status = 400
    code = "chunks_too_small"


class TooManyAhead(Exception):
    """Too many requests wait on one connection."""


def limited_protocol(
    connections: Connections, *, header_timeout_s: float, reader_timeout_s: float
) -> type[asyncio.Protocol]:
    """uvicorn's protocol with limits and deadlines. The limits: connections, bytes read at once,
    and bytes outside bodies. The deadlines: for each request's head, including the rest of an
    answered body before it; and for a reader to take more of its answer when the buffers are full.
    """

    ends = FewATurn(MAX_ENDED)

    class LimitedProtocol(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _reading: asyncio.TimerHandle | None = None
        _address = ""
        _is_refused = False
        _is_in_head = True
        _num_bytes = 0  # of the current message: in all, and of its body
        _num_body_bytes = 0
        _num_left = 0  # bytes left of a body with a declared length
        _is_muted = False
        _offered_frame: Sequence[tuple[bytes, bytes]] = ()

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.max_size = MAX_READ_BYTES
            self._address = self.client[0] if self.client else ""
            # The peer that holds the connection, whatever a forwarding header will claim.
            self.app_state = {**self.app_state, PEER: self._address}
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
            """Continue after the head of a request for an upgrade. No upgrade is offered here, so
            the request is answered like any other. Its parser takes the bytes after the head for
            the new protocol; so another parser, which knows only the body's frame, reads them.
            """
            if not self._offered_frame:
                return
            frame = b"".join(b"%s: %s\r\n" % header for header in self._offered_frame)
            self.parser = httptools.HttpRequestParser(self)
            self._is_muted = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + frame + b"\r\n")
            self._is_muted, self._offered_frame = False, ()

        def _read_next(self) -> None:
            """Set the number of bytes to read at once, and the deadline."""
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
                return  # muted, or a trailer after the body, which is no part of the head
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
            ends.run(self._address, partial(super().connection_lost, exc))

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self.loop.call_later(reader_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._is_read_again()

        def _refuse(self, error: FalconMambaError) -> None:
            """Send the last answer of this connection, unless another answer is being sent."""
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
            """Answer the waiting requests and no later ones; the client may send those again."""
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
