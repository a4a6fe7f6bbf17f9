"""The endpoints of /v1/conversations: a list of items that responses go on from and add to.

A conversation is the library's, and its items are the path to its head. Branches that responses
have made elsewhere in its tree are not shown here.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.listing import PageQuery
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.responses.beginning import find_conversation
from falcon_mamba_app.api.responses.bodies import ConversationBody, ItemsBody
from falcon_mamba_app.api.responses.items import Item, input_item
from falcon_mamba_app.api.responses.record import Json
from falcon_mamba_app.api.responses.shelf import Owner, Shelves, item_of
from falcon_mamba_app.api.responses.writing import title_of
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.http.transport import json_response
from falcon_mamba_app.library import ConversationRecord, new_id
from falcon_mamba_app.protocol import GenerationService


class Conversations:
    """Conversations over the visitors' shelves; the service forgets the states of deleted ones."""

    def __init__(
        self,
        service: GenerationService,
        shelves: Shelves,
        reader: BodyReader,
        copy: str | None = None,
    ) -> None:
        """`copy` is this server's name, if it is one of several."""
        self._service, self._shelves, self._reader = service, shelves, reader
        self._copy = copy

    async def create(self, request: Request) -> Response:
        """POST /v1/conversations."""
        body = await self._reader.read(request, ConversationBody)
        owner = await self._shelves.of(request)
        items = body.items or []
        conversation = await owner.shelf.library.create(
            owner.name,
            title=title_of(items) if items else "",
            folder="API",
            extra={"is_responses": True, "metadata": body.metadata or {}},
            id=new_id("conv", self._copy),
        )
        await _add(owner, conversation, items)
        return json_response(_json(conversation))

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/conversations/{conversation_id}."""
        _, conversation = await self._found(request)
        return json_response(_json(conversation))

    async def update(self, request: Request) -> Response:
        """POST /v1/conversations/{conversation_id}: its metadata."""
        body = await self._reader.read(request, ConversationBody)
        owner, conversation = await self._found(request)
        changed = await owner.shelf.library.change(
            owner.name,
            conversation.id,
            extra={**conversation.extra, "metadata": body.metadata or {}},
        )
        return json_response(_json(changed))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/conversations/{conversation_id}, with all of its responses."""
        owner, conversation = await self._found(request)
        owner.shelf.drop_conversation(owner.name, conversation.id)
        await owner.shelf.library.delete(owner.name, conversation.id)
        await self._forget(conversation.id)
        return json_response(
            {"id": conversation.id, "object": "conversation.deleted", "deleted": True}
        )

    async def items(self, request: Request) -> Response:
        """GET /v1/conversations/{conversation_id}/items."""
        query = PageQuery.of(request.query_params)
        owner, conversation = await self._found(request)
        items = [shown for _, shown in await _items(owner, conversation)]
        return json_response(query.page(items))

    async def add_items(self, request: Request) -> Response:
        """POST /v1/conversations/{conversation_id}/items."""
        body = await self._reader.read(request, ItemsBody)
        owner, conversation = await self._found(request)
        added = await _add(owner, conversation, body.items)
        return json_response(PageQuery(limit=len(added), order="asc").page(added))

    async def item(self, request: Request) -> Response:
        """GET /v1/conversations/{conversation_id}/items/{item_id}."""
        owner, conversation = await self._found(request)
        _, shown = await self._item(request, owner, conversation)
        return json_response(shown)

    async def delete_item(self, request: Request) -> Response:
        """DELETE /v1/conversations/{conversation_id}/items/{item_id}; answers the conversation."""
        owner, conversation = await self._found(request)
        message_id, _ = await self._item(request, owner, conversation)
        owner.shelf.drop_conversation(owner.name, conversation.id)
        await owner.shelf.library.remove(owner.name, conversation.id, [message_id])
        await self._forget(conversation.id)
        return json_response(_json(conversation))

    async def _found(self, request: Request) -> tuple[Owner, ConversationRecord]:
        owner = await self._shelves.of(request)
        return owner, await find_conversation(owner, request.path_params["conversation_id"])

    async def _item(
        self, request: Request, owner: Owner, conversation: ConversationRecord
    ) -> tuple[str, Json]:
        """The message and the item that the path names. Raises NotFound."""
        asked = request.path_params["item_id"]
        for message_id, shown in await _items(owner, conversation):
            if shown["id"] == asked:
                return message_id, shown
        raise NotFound(f"Item with id '{asked[:80]}' not found in the conversation.")

    async def _forget(self, session_id: str) -> None:
        await asyncio.wrap_future(self._service.forget(session_id))


async def _items(owner: Owner, conversation: ConversationRecord) -> list[tuple[str, Json]]:
    """Each message's id, and the item that shows it."""
    path = await owner.shelf.library.path(owner.name, conversation.id)
    found = [(message.id, *item_of(message)) for message in path]
    return [(id, input_item(item_id, item.role, list(item.parts))) for id, item_id, item in found]


async def _add(owner: Owner, conversation: ConversationRecord, items: list[Item]) -> list[Json]:
    parent_id, added = conversation.head_id, []
    for item in items:
        message = await owner.shelf.library.append(
            owner.name,
            conversation.id,
            parent_id=parent_id,
            role=item.message.role,
            text=item.text,
            id=new_id("msg"),
            extra=item.extra,
        )
        parent_id = message.id
        added.append(input_item(message.id, item.role, list(item.parts)))
    return added


def _json(conversation: ConversationRecord) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_s),
        "metadata": conversation.extra.get("metadata") or {},
    }
