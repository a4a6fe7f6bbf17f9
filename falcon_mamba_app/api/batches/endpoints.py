"""/v1/files and /v1/batches, OpenAI's."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, PlainValidator
from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.batches.lines import ENDPOINTS
from falcon_mamba_app.api.batches.places import Desk, Desks, Place
from falcon_mamba_app.api.batches.record import Batch
from falcon_mamba_app.api.batches.running import Places, Runs
from falcon_mamba_app.api.fields import Cleaner, shown
from falcon_mamba_app.api.generation import Caller, Generation
from falcon_mamba_app.api.listing import MAX_PAGE, PageQuery, number_of
from falcon_mamba_app.api.reading import BodyReader, form_of_file
from falcon_mamba_app.api.responses.bodies import Metadata
from falcon_mamba_app.api.schemas import Strict
from falcon_mamba_app.errors import Conflict, InvalidRequest, TooManyRequests
from falcon_mamba_app.files.store import StoredFile
from falcon_mamba_app.http.transport import json_response
from falcon_mamba_app.library import new_id
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.visitors import anybody

Json = dict[str, Any]

PURPOSES = ("batch",)
WINDOW = "24h"
MAX_NAME_CHARS = 255
MAX_UNFINISHED = 10  # of one caller
MAX_OVER = 100  # whose records are kept for one caller
MIN_EXPIRY_S, MAX_EXPIRY_S = 3_600, 30 * 24 * 3_600  # OpenAI's
DEFAULT_RUNNING = 2  # if the service does not tell how many replies it writes at a time


def _endpoint(value: Any) -> str:
    if value not in ENDPOINTS:
        raise InvalidRequest(
            f"endpoint is {shown(value)}; allowed are {' and '.join(ENDPOINTS)}", param="endpoint"
        )
    return str(value)


def _window(value: Any) -> str:
    if value != WINDOW:
        raise InvalidRequest(
            f"completion_window is {shown(value)}; allowed is {WINDOW}", param="completion_window"
        )
    return WINDOW


class BatchBody(Strict):
    """The body of POST /v1/batches."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=80)]
    endpoint: Annotated[str, PlainValidator(_endpoint, json_schema_input_type=str)]
    completion_window: Annotated[str, PlainValidator(_window, json_schema_input_type=str)]
    metadata: Metadata | None = None

    @classmethod
    def cleaned(cls, body: Json) -> Json:
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)


class FileEndpoints:
    """/v1/files."""

    def __init__(self, desks: Desks) -> None:
        self._desks = desks

    async def create(self, request: Request) -> Response:
        """POST /v1/files: a form with `file` and `purpose`."""
        place = self._desks.of(request)
        async with form_of_file(request) as form:
            upload, purpose = form.get("file"), form.get("purpose")
            lasts_s = _expiry(form)
            if not isinstance(upload, UploadFile):
                raise InvalidRequest(
                    "file is missing: a part of the form with a name", param="file"
                )
            if purpose not in PURPOSES:
                raise InvalidRequest(
                    f"purpose is {shown(purpose)}; allowed is {', '.join(PURPOSES)}",
                    param="purpose",
                )
            name = (upload.filename or "file")[-MAX_NAME_CHARS:]
            data = await upload.read()
        file = await asyncio.to_thread(
            place.desk.files.add, place.owner, data, name=name, purpose=purpose, lasts_s=lasts_s
        )
        return json_response(_told(file))

    async def listed(self, request: Request) -> Response:
        """GET /v1/files, the newest first."""
        place, query = self._desks.of(request), request.query_params
        files = place.desk.files.of(place.owner)
        if purpose := query.get("purpose"):
            files = [file for file in files if file.purpose == purpose]
        return json_response(_part(query, [_told(file) for file in files]))

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/files/{id}."""
        place = self._desks.of(request)
        return json_response(_told(place.desk.files.get(place.owner, _id_in(request))))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/files/{id}; a batch that is not over keeps its files."""
        place, file_id = self._desks.of(request), _id_in(request)
        for batch in place.desk.batches.of(place.owner):
            used = (batch.input_file_id, batch.output_id, batch.error_id)
            if not batch.is_over and file_id in used:
                raise Conflict(f"{file_id} belongs to {batch.id}, which is not over; cancel that")
        await asyncio.to_thread(place.desk.files.remove, place.owner, file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    async def remove_all(self, request: Asking) -> int:
        """Delete the caller's files; how many they were."""
        place = self._desks.of(request)
        return await asyncio.to_thread(place.desk.files.remove_all, place.owner)

    async def content(self, request: Request) -> Response:
        """GET /v1/files/{id}/content."""
        place, file_id = self._desks.of(request), _id_in(request)
        file = place.desk.files.get(place.owner, file_id)
        data = await asyncio.to_thread(place.desk.files.read, place.owner, file_id)
        named = f"attachment; filename*=UTF-8''{quote(file.name)}"
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"Content-Disposition": named},
        )


class BatchEndpoints:
    """/v1/batches."""

    def __init__(
        self, service: GenerationService, desks: Desks, generation: Generation, reader: BodyReader
    ) -> None:
        self._service, self._desks = service, desks
        self._generation, self._reader = generation, reader
        self._runs: Runs | None = None

    async def create(self, request: Request) -> Response:
        """POST /v1/batches."""
        body = await self._reader.read(request, BatchBody)
        place = self._desks.of(request)
        place.desk.files.get(place.owner, body.input_file_id)
        batches = place.desk.batches
        num_unfinished = sum(not batch.is_over for batch in batches.of(place.owner))
        if num_unfinished >= MAX_UNFINISHED:
            raise TooManyRequests(
                f"{num_unfinished} batches of yours are not over, the most this server takes;"
                " wait for one, or cancel one",
                retry_after_s=60,
            )
        batch = Batch(
            id=new_id("batch", self._desks.copy),
            owner=place.owner,
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            metadata=body.metadata,
            created_s=int(time.time()),
        )
        batches.drop_oldest(place.owner, max_number=MAX_OVER)
        batches.keep(batch)
        self._start(batch, place.desk, self._generation.caller(request))
        return json_response(batch.told())

    async def listed(self, request: Request) -> Response:
        """GET /v1/batches, the newest first."""
        place = self._desks.of(request)
        told = [batch.told() for batch in place.desk.batches.of(place.owner)]
        return json_response(_part(request.query_params, told))

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/batches/{id}."""
        _, batch = self._asked(request)
        return json_response(batch.told())

    async def cancel(self, request: Request) -> Response:
        """POST /v1/batches/{id}/cancel; what has been answered is kept."""
        place, batch = self._asked(request)
        if batch.is_over:
            raise Conflict(f"{batch.id} is {batch.status}; there is nothing to cancel")
        await self._begun().cancel(batch, place.desk.batches, place.desk.files)
        return json_response(batch.told())

    async def remove_all(self, request: Asking) -> int:
        """End and forget the caller's batches; how many. Their files are the caller's."""
        place = self._desks.of(request)
        own = place.desk.batches.of(place.owner)
        for batch in own:
            if not batch.is_over:
                await self._begun().cancel(batch, place.desk.batches, place.desk.files)
            place.desk.batches.drop(batch)
        return len(own)

    def go_on(self) -> None:
        """Go on with the batches that an earlier process left unfinished."""
        desk = self._desks.kept
        for batch in desk.batches.unfinished() if desk is not None else ():
            assert desk is not None, "only kept batches outlive a process"
            self._start(batch, desk, Caller(anybody(), None, None))

    async def close(self) -> None:
        if self._runs is not None:
            await self._runs.close()

    def _asked(self, request: Request) -> tuple[Place, Batch]:
        place = self._desks.of(request)
        return place, place.desk.batches.get(place.owner, _id_in(request))

    def _start(self, batch: Batch, desk: Desk, caller: Caller) -> None:
        answering = partial(self._generation.in_background, caller)
        self._begun().start(batch, desk.batches, desk.files, answering)

    def _begun(self) -> Runs:
        """Half of the places: the other half stays free for people."""
        if self._runs is None:
            running = self._service.stats().max_running or DEFAULT_RUNNING
            self._runs = Runs(Places(max(1, running // 2)))
        return self._runs


def _expiry(form: FormData) -> int | None:
    """After how many seconds the file goes by itself. Raises InvalidRequest."""
    given = form.get("expires_after[seconds]")
    if given is None:
        return None
    seconds = number_of(given) if isinstance(given, str) else None
    if seconds is None or not MIN_EXPIRY_S <= seconds <= MAX_EXPIRY_S:
        raise InvalidRequest(
            f"expires_after[seconds] is {shown(str(given))}; allowed are {MIN_EXPIRY_S:,} to"
            f" {MAX_EXPIRY_S:,}",
            param="expires_after[seconds]",
        )
    return seconds


def _id_in(request: Request) -> str:
    found: str = next(iter(request.path_params.values()))
    return found


def _told(file: StoredFile) -> Json:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _part(query: QueryParams, newest_first: list[Json]) -> Json:
    """The part of the list that is asked for; all of it, as far as one answer goes, unless told."""
    return PageQuery.of(query, default_limit=MAX_PAGE).page(newest_first[::-1])
