"""The library's sessions as files: one out, in four formats; one or thousands in, of six kinds."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.api.responses.shelf import Shelves
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http.transport import json_response, read_body
from falcon_mamba_app.library import ConversationRecord
from falcon_mamba_app.library.exchange import as_json, as_jsonl, as_markdown, bundle, read
from falcon_mamba_app.library.tree import Tree

KINDS = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "markdown": "text/markdown; charset=utf-8",
    "zip": "application/zip",
}
ENDINGS = {"json": "json", "jsonl": "jsonl", "markdown": "md", "zip": "falcon.zip"}
BATCH = 100  # between two of them others write


class SessionFiles:
    """Export and import over the visitors' shelves."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    async def export(self, request: Request) -> Response:
        """GET /v1/sessions/{id}/export: the session as a file; `format` is json (the whole tree),
        jsonl (OpenAI's messages up to the head), markdown or zip.
        """
        request.state.visitor.count_transfer()
        kind = request.query_params.get("format", "json")
        if kind not in KINDS:
            raise InvalidRequest(
                f"format is {kind[:40]!r}; allowed are {', '.join(KINDS)}", param="format"
            )
        owner = await self._shelves.of(request)
        tree = await owner.shelf.library.tree(owner.name, request.path_params["session_id"])
        data = await asyncio.to_thread(_written, tree, kind)
        name = f'attachment; filename="conversation.{ENDINGS[kind]}"'
        return Response(data, media_type=KINDS[kind], headers={"Content-Disposition": name})

    async def take_in(self, request: Request) -> Response:
        """POST /v1/sessions/import: the body is a file of this app, of OpenAI's messages, ShareGPT,
        Open WebUI or ChatGPT; answers the new sessions. States in a zip are read again instead.
        """
        request.state.visitor.count_transfer()
        owner = await self._shelves.of(request)
        trees, _ = await asyncio.to_thread(read, await read_body(request))
        made: list[ConversationRecord] = []
        for at in range(0, len(trees), BATCH):
            made += await owner.shelf.library.adopt(owner.name, *trees[at : at + BATCH])
        data = [{"id": one.id, "object": "session", "title": one.title} for one in made]
        return json_response({"object": "list", "data": data})


def _written(tree: Tree, kind: str) -> bytes:
    if kind == "zip":
        return bundle(tree, {})
    if kind == "jsonl":
        return as_jsonl([tree]).encode()
    return (as_json(tree) if kind == "json" else as_markdown(tree)).encode()
