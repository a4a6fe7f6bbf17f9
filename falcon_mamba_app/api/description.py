"""The API's description in OpenAPI 3.1, for generated clients and for tests that read one.

Paths and methods come from the routes themselves, bodies from the classes that check them. The
server takes more than a body's description says: nulls, hints, and other servers' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from falcon_mamba_app import __version__
from falcon_mamba_app.api.batches.endpoints import BatchBody
from falcon_mamba_app.api.books import BookChanges, NewBook
from falcon_mamba_app.api.responses.bodies import (
    ConversationBody,
    CountBody,
    ItemsBody,
    ResponseBody,
)
from falcon_mamba_app.api.schemas import ChatBody, CompletionBody, Strict
from falcon_mamba_app.api.tokenization import DetokenizeBody, TokenizeBody

Json = dict[str, Any]

PATH = "/v1/openapi.json"
BODIES: Mapping[str, type[Strict]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponseBody,
    "/v1/responses/input_tokens": CountBody,
    "/v1/conversations": ConversationBody,
    "/v1/conversations/{conversation_id}": ConversationBody,
    "/v1/conversations/{conversation_id}/items": ItemsBody,
    "/v1/batches": BatchBody,
    "/v1/books": NewBook,
    "/v1/books/{book_id}": BookChanges,
    "/tokenize": TokenizeBody,
    "/v1/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
    "/v1/detokenize": DetokenizeBody,
}
FORM: Json = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "purpose": {"enum": ["batch"]},
    },
}
FILES = {"PUT": "application/octet-stream"}  # states of sessions
# What answers are, where they are no JSON.
KINDS: Mapping[str, tuple[str, ...]] = {
    "/metrics": ("text/plain",),
    "/v1/books/{book_id}/text": ("text/plain",),
    "/load_model": ("text/event-stream",),
    "/v1/files/{file_id}/content": ("application/octet-stream",),
    "/v1/sessions/{session_id}/state": ("application/octet-stream", "application/json"),
    "/v1/sessions/{session_id}/export": (
        *("application/json", "application/jsonl", "text/markdown", "application/zip"),
    ),
}
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(routes: Iterable[BaseRoute]) -> Json:
    """The whole description of the API's routes."""
    schemas: Json = {"Error": ERROR}
    paths: dict[str, Json] = {}
    for route in routes:
        if isinstance(route, APIRoute) and "{rest" not in route.path:
            path = _named_once(re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path), paths)
            methods = (route.methods or set()) - {"HEAD", "OPTIONS"}
            if methods <= {"GET", "POST", "PUT", "DELETE"} and len(methods) == 1:
                method = methods.pop()
                paths.setdefault(path, {})[method.lower()] = _operation(path, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Falcon Mamba", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _named_once(path: str, paths: Iterable[str]) -> str:
    """The path, with the names of an earlier one that differs from it in names only."""
    shape = re.sub(r"\{\w+\}", "{}", path)
    return next((known for known in paths if re.sub(r"\{\w+\}", "{}", known) == shape), path)


def _operation(path: str, method: str, schemas: Json) -> Json:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    kinds = KINDS.get(path, ("application/json",))
    kinds = (*kinds, "text/event-stream") if path in STREAMED else kinds
    operation: Json = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").rstrip("_"),
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {} for kind in kinds}},
            "default": {"description": "Why there is none.", "content": error},
        },
    }
    if names := re.findall(r"\{(\w+)\}", path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if method == "POST" and path in BODIES:
        schema = {"$ref": f"#/components/schemas/{_added(BODIES[path], schemas)}"}
        content: Json = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    elif method == "POST" and path in STREAMED:
        content = {"application/json": {"schema": {"type": "object"}}}
        operation["requestBody"] = {"required": True, "content": content}
    elif method == "POST" and path == "/v1/files":
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": FORM}},
        }
    elif method in FILES:
        operation["requestBody"] = {"required": True, "content": {FILES[method]: {}}}
    return operation


def _added(body: type[Strict], schemas: Json) -> str:
    """The name of the body's schema, which stands among the schemas afterwards."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schemas[body.__name__] = schema
    return body.__name__
