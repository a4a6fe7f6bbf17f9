"""The library's sessions over HTTP: list, search, trees, branches, forks. What the page can do.

A session here is a conversation of the library: `conversation` of /v1/responses goes on from its
head, and `previous_response_id` from any reply in its tree.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.fields import Cleaner, shown
from falcon_mamba_app.api.listing import number_between
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.responses.beginning import Before, whole
from falcon_mamba_app.api.responses.shelf import Owner, Shelves
from falcon_mamba_app.api.schemas import Strict
from falcon_mamba_app.errors import InvalidRequest, NotFound, NotSupported
from falcon_mamba_app.http.transport import json_response
from falcon_mamba_app.library import ConversationRecord, MessageRecord, Tree
from falcon_mamba_app.library.tree import ids_of
from falcon_mamba_app.owners import Asking
from falcon_mamba_app.protocol import Conversation, GenerationService

Json = dict[str, Any]

DEFAULT_LIMIT, MAX_PAGE = 50, 200
MAX_VERSION = 2**31 - 1
MAX_MESSAGES = 1_000  # of one request that makes a session
NOT_TOLD = ("token_ids", "generation", "extra", "conversation_id")
YES_AND_NO = {"true": True, "1": True, "false": False, "0": False, "any": None}


class _Body(Strict):
    """A body whose unknown fields are refused by name."""

    @classmethod
    def cleaned(cls, body: Json) -> Json:
        return Cleaner({}, own=cls.model_fields.keys()).clean(body)


class NewMessage(_Body):
    """One message of a new session."""

    role: Literal["system", "user", "assistant"]
    content: str


class NewSession(_Body):
    """The body of POST /v1/sessions; the messages follow each other."""

    title: Annotated[str, Field(max_length=500)] = ""
    system_prompt: str = ""
    folder: Annotated[str, Field(max_length=200)] = ""
    messages: Annotated[list[NewMessage], Field(max_length=MAX_MESSAGES)] = Field(
        default_factory=list
    )


class SessionChanges(_Body):
    """The body of POST /v1/sessions/{id}; what is left out stays."""

    title: Annotated[str, Field(max_length=500)] | None = None
    system_prompt: str | None = None
    folder: Annotated[str, Field(max_length=200)] | None = None
    is_pinned: bool | None = None
    is_archived: bool | None = None
    head_id: str | None = None
    version: Annotated[int, Field(ge=0, le=MAX_VERSION)] | None = (
        None  # the one that the changes were made for
    )


class NewFork(_Body):
    """The body of POST /v1/sessions/{id}/fork: up to which message, the head without one."""

    message_id: str | None = None
    title: Annotated[str, Field(max_length=500)] | None = None


class NewBranch(_Body):
    """The body of PUT /v1/sessions/{id}/branches/{name}: which message it names."""

    message_id: str | None = None


class KeptSessions:
    """Sessions over the visitors' shelves."""

    def __init__(self, service: GenerationService, shelves: Shelves, reader: BodyReader) -> None:
        self._service, self._shelves, self._reader = service, shelves, reader

    async def listed(self, request: Request) -> Response:
        """GET /v1/sessions: a page of them, the pinned ones first; with `q` those that have it."""
        owner, query = await self._shelves.of(request), request.query_params
        limit = number_between(query, "limit", DEFAULT_LIMIT, 1, MAX_PAGE)
        if "q" in query:
            hits = await owner.shelf.library.search(owner.name, query["q"], limit=limit)
            found = [
                {**_session(hit.conversation), "found_in": hit.message_id, "excerpt": hit.excerpt}
                for hit in hits
            ]
            return json_response({"object": "list", "data": found, "next": None})
        page = await owner.shelf.library.list(
            owner.name,
            limit=limit,
            cursor=query.get("cursor"),
            is_archived=_yes_or_no(query, "is_archived", False),
            is_pinned=_yes_or_no(query, "is_pinned", None),
            folder=query.get("folder"),
        )
        data = [_session(one) for one in page.conversations]
        return json_response({"object": "list", "data": data, "next": page.next})

    async def create(self, request: Request) -> Response:
        """POST /v1/sessions."""
        body = await self._reader.read(request, NewSession)
        owner = await self._shelves.of(request)
        library = owner.shelf.library
        made = await library.create(
            owner.name, title=body.title, system_prompt=body.system_prompt, folder=body.folder
        )
        parent_id = None
        for message in body.messages:
            added = await library.append(
                owner.name, made.id, parent_id=parent_id, role=message.role, text=message.content
            )
            parent_id = added.id
        return json_response(_tree(await library.tree(owner.name, made.id)))

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/sessions/{id}: the session with all of its messages and branches."""
        owner = await self._shelves.of(request)
        tree = await owner.shelf.library.tree(owner.name, request.path_params["session_id"])
        with_ids = request.query_params.get("include") == "token_ids"
        return json_response(_tree(tree, with_ids=with_ids))

    async def change(self, request: Request) -> Response:
        """POST /v1/sessions/{id}: its title, folder and so on; `head_id` goes on from elsewhere."""
        body = await self._reader.read(request, SessionChanges)
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        library, version = owner.shelf.library, body.version
        changes = body.model_dump(exclude_none=True, exclude={"head_id", "version"})
        changed = await library.get(owner.name, session_id)
        if changes:
            changed = await library.change(
                owner.name, session_id, expected_version=version, **changes
            )
            version = changed.version if version is not None else None
        if body.head_id is not None:
            changed = await library.set_head(
                owner.name, session_id, body.head_id, expected_version=version
            )
        return json_response(_session(changed))

    async def fork(self, request: Request) -> Response:
        """POST /v1/sessions/{id}/fork: a session of its own with the path to a message."""
        body = await self._reader.read(request, NewFork)
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        message_id = body.message_id or await self._head(owner, session_id)
        forked = await owner.shelf.library.fork(
            owner.name, session_id, message_id, title=body.title
        )
        return json_response(_tree(await owner.shelf.library.tree(owner.name, forked.id)))

    async def name_branch(self, request: Request) -> Response:
        """PUT /v1/sessions/{id}/branches/{name}."""
        body = await self._reader.read(request, NewBranch)
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        message_id = body.message_id or await self._head(owner, session_id)
        branch = await owner.shelf.library.name_branch(
            owner.name, session_id, request.path_params["name"], message_id
        )
        ids = await self._ids_up_to(owner, message_id)
        if ids:
            await self._service.pin_state(session_id, ids)
        return json_response({"object": "session.branch", **asdict(branch)})

    async def unname_branch(self, request: Request) -> Response:
        """DELETE /v1/sessions/{id}/branches/{name}: the name goes, the messages stay."""
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        name, library = request.path_params["name"], owner.shelf.library
        named = {
            one.name: one.message_id
            for one in (await library.tree(owner.name, session_id)).branches
        }
        await library.unname_branch(owner.name, session_id, name)
        message_id = named.pop(name, None)
        if message_id is not None and message_id not in named.values():
            ids = await self._ids_up_to(owner, message_id)
            if ids:
                await self._service.unpin_state(session_id, ids)
        return json_response({"object": "session.branch", "name": name, "deleted": True})

    async def delete_message(self, request: Request) -> Response:
        """DELETE /v1/sessions/{id}/messages/{message_id}: with all that follows; the rest."""
        owner, session_id = await self._shelves.of(request), request.path_params["session_id"]
        library, message_id = owner.shelf.library, request.path_params["message_id"]
        if message_id not in (await library.tree(owner.name, session_id)).by_id:
            raise NotFound(f"the session has no message {shown(message_id)}")
        await library.remove_branch(owner.name, message_id)
        owner.shelf.drop_conversation(owner.name, session_id)
        await self._forget(session_id)
        return json_response(_tree(await library.tree(owner.name, session_id)))

    async def delete(self, request: Request, session_id: str) -> Response | None:
        """Delete the session with all it has said; None where the library has no such one."""
        owner = await self._shelves.of(request)
        try:
            await owner.shelf.library.delete(owner.name, session_id)
        except NotFound:
            return None
        owner.shelf.drop_conversation(owner.name, session_id)
        await self._forget(session_id)
        return json_response({"id": session_id, "object": "session", "deleted": True})

    async def remove_all(self, request: Asking) -> int:
        """Delete all of the caller's sessions; how many they were."""
        owner = await self._shelves.of(request)
        gone = (await owner.shelf.library.delete_everything(owner.name)).conversation_ids
        for session_id in gone:
            owner.shelf.drop_conversation(owner.name, session_id)
            await self._forget(session_id)
        return len(gone)

    async def is_kept(self, request: Request, session_id: str) -> bool:
        """Whether it is a session of the caller's in the library."""
        owner = await self._shelves.of(request)
        try:
            await owner.shelf.library.get(owner.name, session_id)
        except NotFound:
            return False
        return True

    async def ids_at(self, request: Request, session_id: str, message_id: str) -> list[int]:
        """The ids of all that was read and written up to a message's end. Raises NotFound."""
        owner = await self._shelves.of(request)
        message = await owner.shelf.library.message(owner.name, message_id)
        instructions = None
        if message.role == "assistant":
            record = await owner.shelf.get(owner.name, message_id)
            if record.packed_ids is not None and record.conversation_id == session_id:
                return array("i", record.packed_ids).tolist()
            instructions = record.asked.get("instructions")
        tokenizer = self._service.tokenizer
        if tokenizer is None:
            raise NotSupported("the server behind --backend-url has the states of earlier moments")
        messages = await whole(owner, Before(session_id, message_id), [], instructions)
        return await asyncio.to_thread(tokenizer.encode, Conversation(messages))

    async def _forget(self, session_id: str) -> None:
        """Drop the session's states, wherever there are such."""
        with contextlib.suppress(NotSupported):
            await asyncio.wrap_future(self._service.forget(session_id))

    async def _ids_up_to(self, owner: Owner, message_id: str) -> tuple[int, ...]:
        """The ids that a kept reply's state has read; empty where there is none, or none known."""
        if not owner.shelf.outlives_the_process:
            return ()
        try:
            packed = (await owner.shelf.get(owner.name, message_id)).packed_ids
        except NotFound:  # it is no reply
            return ()
        return ids_of(packed) if packed else ()

    async def _head(self, owner: Owner, session_id: str) -> str:
        """The session's last message. Raises NotFound, and InvalidRequest where there is none."""
        session = await owner.shelf.library.get(owner.name, session_id)
        if session.head_id is None:
            raise InvalidRequest("the session has no message yet", param="message_id")
        return session.head_id


def _session(record: ConversationRecord) -> Json:
    told = asdict(record)
    for name in ("owner", "extra"):
        del told[name]
    created, updated = told.pop("created_s"), told.pop("updated_s")
    return {"object": "session", **told, "created_at": int(created), "updated_at": int(updated)}


def _tree(tree: Tree, *, with_ids: bool = False) -> Json:
    return {
        **_session(tree.conversation),
        "messages": [_message(one, with_ids=with_ids) for one in tree.messages],
        "branches": {branch.name: branch.message_id for branch in tree.branches},
    }


def _message(record: MessageRecord, *, with_ids: bool) -> Json:
    told = {name: value for name, value in asdict(record).items() if name not in NOT_TOLD}
    told["content"], told["created_at"] = told.pop("text"), int(told.pop("created_s"))
    if with_ids:
        told["token_ids"] = list(ids_of(record.token_ids)) if record.token_ids else None
    return {"object": "session.message", **told}


def _yes_or_no(query: QueryParams, name: str, default: bool | None) -> bool | None:
    text = query.get(name)
    if text is None:
        return default
    if text not in YES_AND_NO:
        raise InvalidRequest(
            f"{name} is {shown(text)}; allowed are {', '.join(YES_AND_NO)}", param=name
        )
    return YES_AND_NO[text]
