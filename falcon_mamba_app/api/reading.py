"""Reads and checks the bodies of the endpoints: short ones at once, large ones on a thread; and the
forms that bring a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from falcon_mamba_app.api.body_shape import refuse_too_many_values
from falcon_mamba_app.api.schemas import Strict, parse_body
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http.errors import WrongContentType
from falcon_mamba_app.http.transport import ReaderGone, read_json_body

# Parsing this much in short messages takes 4 ms. Larger bodies are parsed in a thread.
MAX_BYTES_PARSED_AT_ONCE = 100_000
MAX_FIELDS = 8  # of a form

Body = TypeVar("Body", bound=Strict)


class BodyReader:
    """One for all endpoints, so that one large body is parsed at a time: meanwhile it takes three
    to five times its bytes.
    """

    def __init__(self) -> None:
        self._large_bodies = asyncio.Semaphore(1)

    async def read(self, request: Request, kind: type[Body]) -> Body:
        """The checked body. Raises WrongContentType and InvalidRequest."""
        data = await read_json_body(request)
        if len(data) <= MAX_BYTES_PARSED_AT_ONCE:
            return parse_body(kind, data)
        async with self._large_bodies:
            await asyncio.to_thread(refuse_too_many_values, data)
            return await asyncio.to_thread(parse_body, kind, data)


@asynccontextmanager
async def form_of_file(request: Request, otherwise: str = "") -> AsyncIterator[FormData]:
    """The form in the body, with one file at most. Raises WrongContentType, which also tells what
    may be sent `otherwise`, InvalidRequest, and ReaderGone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise WrongContentType(
            f"send the file as a form: Content-Type: multipart/form-data{otherwise}"
        )
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    except ClientDisconnect:
        raise ReaderGone from None
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "")
        raise InvalidRequest(f"the form cannot be read: {reason}") from None
    try:
        yield form
    finally:
        await form.close()
