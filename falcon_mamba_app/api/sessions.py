"""A session's state over HTTP: export it, import it, look into it, forget it, and all else with it.

As in generation, the owner and the caller's `prompt_cache_key` name a session; the id of one in the
library names that one.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.access import Access
from falcon_mamba_app.api.books import BookShelf
from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.api.kept_sessions import KeptSessions
from falcon_mamba_app.api.listing import number_between
from falcon_mamba_app.api.names import ready_model
from falcon_mamba_app.belongings import Belongings
from falcon_mamba_app.errors import InvalidRequest, NotFound, NotSupported
from falcon_mamba_app.http.transport import json_response, read_body
from falcon_mamba_app.inspection import MAX_TURNS_LOOKED_AT as MAX_TURNS
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import GenerationService, StateLook
from falcon_mamba_app.visitors import Visitor, visitor_in


class Sessions:
    """Export, import and forget over one service."""

    def __init__(
        self,
        service: GenerationService,
        access: Access,
        kept: KeptSessions,
        belongings: Belongings,
        books: BookShelf,
    ) -> None:
        self._service, self._access, self._kept = service, access, kept
        self._belongings, self._books = belongings, books

    async def export_state(self, request: Request) -> Response:
        """GET /v1/sessions/{prompt_cache_key}/state; of a kept session also that of the moment
        after the message `message_id`, or of the nearest one before it.
        """
        request.state.visitor.count_transfer()
        # Also after a failure of the service: states in host memory can still be saved.
        session_id, token_ids = await self._session_id(request), None
        message_id = request.query_params.get("message_id")
        if message_id is not None:
            token_ids = await self._kept.ids_at(request, session_id, message_id)
        data = await self._service.export_state(session_id, token_ids)
        headers = {"Content-Disposition": 'attachment; filename="session.safetensors"'}
        return Response(data, headers=headers, media_type="application/octet-stream")

    async def import_state(self, request: Request) -> Response:
        """PUT /v1/sessions/{prompt_cache_key}/state; answers how many tokens the state has read."""
        ready_model(self._service)
        visitor: Visitor = request.state.visitor
        visitor.count_transfer()
        session_id = await self._session_id(request)
        with visitor.session(session_id):
            data = await read_body(request)
            num_tokens = await self._service.import_state(session_id, data)
        return json_response({"object": "session.state", "num_tokens": num_tokens})

    async def publish_state(self, request: Request) -> Response:
        """POST /v1/sessions/{prompt_cache_key}/state: write it where other copies of this server
        find it, without waiting until the session is idle; answers how many tokens it has read.
        """
        ready_model(self._service)
        request.state.visitor.count_transfer()
        session_id = await self._session_id(request)
        num_tokens = await self._service.publish_state(session_id)
        return json_response({"object": "session.state", "num_tokens": num_tokens})

    async def inspect_state(self, request: Request) -> Response:
        """GET /v1/sessions/{prompt_cache_key}/state/inspect: what the state holds, and what its
        newest `turns` have left in it. They are read again for that, but not the `book` that the
        session stands on.
        """
        ready_model(self._service)
        visitor: Visitor = request.state.visitor
        max_turns = number_between(
            request.query_params, "turns", StateLook().max_turns, 1, MAX_TURNS
        )
        visitor.count_transfer()
        look = StateLook(
            max_turns=max_turns,
            begins_from=await self._books.named_in(request),
            owner=f"look {visitor.line(None)}",
            weight=visitor.weight,
        )
        session_id = await self._session_id(request)
        inspection = await self._service.inspect_state(session_id, look)
        visitor.count_tokens(inspection.num_tokens_read)
        return json_response({"object": "session.inspection", **asdict(inspection)})

    async def forget(self, request: Request) -> Response:
        """DELETE /v1/sessions/{prompt_cache_key}."""
        ready_model(self._service)
        kept = await self._kept.delete(request, request.path_params["prompt_cache_key"])
        if kept is not None:
            return kept
        session_id = await self._session_id(request)
        was_known = await asyncio.wrap_future(self._service.forget(session_id))
        request.state.visitor.drop_session(session_id)
        if not was_known:
            raise NotFound("there is no such session here: it has read nothing, or was evicted")
        return json_response({"object": "session", "deleted": True})

    async def delete_everything(self, request: Request) -> Response:
        """DELETE /v1/sessions?everything=true: all that the server has of the caller."""
        told = request.query_params.get("everything", "")
        if told != "true":
            raise InvalidRequest(
                f"everything is {shown(told)}; to delete all that is yours it must be true",
                param="everything",
            )
        gone = await self._belongings.delete(request)
        return json_response({"object": "everything", "deleted": True, "num_deleted": gone})

    async def remove_all(self, request: Asking) -> int:
        """Drop the states of all sessions that the caller has named; how many are known."""
        visitor = visitor_in(request.state)
        names = self._access.names_of(visitor.owner)
        dropped = [asyncio.wrap_future(self._service.forget(name)) for name in names]
        found = await asyncio.gather(*dropped, return_exceptions=True)
        for name in names:
            visitor.drop_session(name)
        for trouble in found:
            if isinstance(trouble, BaseException) and not isinstance(trouble, NotSupported):
                raise trouble
        return sum(was_known is True for was_known in found[:-1])

    async def _session_id(self, request: Request) -> str:
        key: str = request.path_params["prompt_cache_key"]
        if await self._kept.is_kept(request, key):
            return key
        return self._access.session_id(request.state.visitor.owner, key)
