"""The OpenAI-compatible API over a GenerationService, with sessions, health and metrics.

All endpoints are under /v1, /health and /metrics, so that a page can be mounted at "/". The caller
of `create_api` starts and closes the service; this module only uses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from falcon_mamba_app.api import description
from falcon_mamba_app.api.access import Access
from falcon_mamba_app.api.batches.endpoints import BatchEndpoints, FileEndpoints
from falcon_mamba_app.api.batches.places import Desks
from falcon_mamba_app.api.books import BookShelf
from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.api.generation import Generation
from falcon_mamba_app.api.information import Information
from falcon_mamba_app.api.kept_sessions import KeptSessions
from falcon_mamba_app.api.names import ServedNames
from falcon_mamba_app.api.reading import BodyReader
from falcon_mamba_app.api.responses.conversations import Conversations
from falcon_mamba_app.api.responses.endpoints import Responses
from falcon_mamba_app.api.responses.shelf import Shelves
from falcon_mamba_app.api.session_files import SessionFiles
from falcon_mamba_app.api.sessions import Sessions
from falcon_mamba_app.api.tokenization import Tokenization
from falcon_mamba_app.belongings import Belongings
from falcon_mamba_app.books.books import Books
from falcon_mamba_app.errors import NotFound
from falcon_mamba_app.figures import Figures
from falcon_mamba_app.http.errors import (
    WrongMethod,
    error_body,
    error_headers,
    presentable,
)
from falcon_mamba_app.http.transport import ReaderGone, json_response
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.protocol import GenerationService
from falcon_mamba_app.settings import LimitSettings

CLIENT_CLOSED_REQUEST = 499  # nginx's number, for the access log only
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class _All(Convertor[str]):
    """The rest of a path, with every character: a line break in a key is none of the path's."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("all", _All())

Endpoint = Callable[[Request], Awaitable[Response]]
Add = Callable[[str, str, Endpoint], None]


def create_api(
    service: GenerationService,
    *,
    api_keys: tuple[str, ...] = (),
    session_secret: str | None = None,
    served_names: tuple[str, ...] = (),
    reuse_prompts: bool = True,
    figures: Figures | None = None,
    keeping: Keeping | None = None,
    keys: Keys | None = None,
    is_locked: bool = False,
    copy: str | None = None,
    max_state_bytes: int = LimitSettings().max_state_bytes,
    books: Books | None = None,
) -> FastAPI:
    """The application that serves the API.

    With `api_keys`, or with `keys` that belong to users, /v1 and /metrics ask for one of them; also
    without any, if the API `is_locked`. /health never does. With a
    `session_secret`, a session's id is the same after a restart. With `reuse_prompts`, requests
    begin from what earlier ones of the same caller have read. `figures` are told by /metrics.
    `keeping` has the library, and says who has a place in it; other callers' responses stay in
    memory. `copy` is this server's name among several. `max_state_bytes` is the most that a
    session's states take in a file.
    """
    access = Access(
        api_keys, session_secret, reuse_prompts=reuse_prompts, keys=keys, is_locked=is_locked
    )
    names = ServedNames(served_names)
    figures = figures or Figures()
    reader = BodyReader()
    app_books = books or Books(service, keeping)
    shelf = BookShelf(service, app_books, reader)
    generation = Generation(service, access, names, figures, reader, shelf)
    shelves = Shelves(keeping)
    kept = KeptSessions(service, shelves, reader)
    belongings = Belongings()
    sessions = Sessions(service, access, kept, belongings, shelf)
    info = Information(service, names, figures)
    app = FastAPI(title="Falcon Mamba", docs_url=None, redoc_url=None, openapi_url=None)

    def add(method: str, path: str, endpoint: Endpoint) -> None:
        guarded = _answered(_admitted(endpoint, access), figures)
        app.add_api_route(path, guarded, methods=_with_head(method))

    add("POST", "/v1/chat/completions", generation.chat)
    add("POST", "/v1/completions", generation.completions)
    add("POST", "/v1/messages", generation.messages)
    responses = Responses(service, access, names, figures, shelves, reader, shelf, copy)
    app.state.responses, app.state.books = responses, app_books
    _add_responses(add, app.state.responses)
    _add_conversations(add, Conversations(service, shelves, reader, copy))
    app.state.belongings = belongings
    desks = Desks(keeping, copy)
    app.state.batches = BatchEndpoints(service, desks, generation, reader)
    file_endpoints = FileEndpoints(desks)
    _add_batches(add, file_endpoints, app.state.batches)
    belongings.add("batches", app.state.batches.remove_all)
    belongings.add("files", file_endpoints.remove_all)
    belongings.add("books", shelf.remove_all)
    belongings.add("conversations", kept.remove_all)
    belongings.add("states", sessions.remove_all)
    files = SessionFiles(service, shelves, kept, max_state_bytes=max_state_bytes)
    _add_session_files(add, files)
    _add_kept_sessions(add, kept)
    shelf.add_to(add)
    add("GET", "/v1/models", info.models)
    add("GET", "/v1/models/{model_id:all}", info.model)
    add("GET", "/v1/sessions/{prompt_cache_key:all}/state", sessions.export_state)
    add("PUT", "/v1/sessions/{prompt_cache_key:all}/state", sessions.import_state)
    add("POST", "/v1/sessions/{prompt_cache_key:all}/state", sessions.publish_state)
    add("GET", "/v1/sessions/{prompt_cache_key:all}/state/inspect", sessions.inspect_state)
    add("DELETE", "/v1/sessions/{prompt_cache_key:all}", sessions.forget)
    add("DELETE", "/v1/sessions", sessions.delete_everything)
    tokens = Tokenization(service, names)
    for prefix in ("", "/v1"):  # vLLM has them beside /v1, where clients look for them
        add("POST", f"{prefix}/tokenize", tokens.tokenize)
        add("POST", f"{prefix}/detokenize", tokens.detokenize)
        add("GET", f"{prefix}/tokenizer_info", tokens.info)
    add("POST", "/load_model", info.load_model)
    add("GET", "/metrics", info.metrics)
    for path, endpoint in (
        ("/health", info.health),
        ("/health/live", info.live),
        ("/health/ready", info.health),
    ):
        app.add_api_route(path, endpoint, methods=_with_head("GET"))
    routes = list(app.routes)  # as they are now, without a page's
    app.state.offered = sorted(description.describe(routes)["paths"])
    add("GET", description.PATH, _description_of(routes))
    # Last: without it a page mounted at "/" would answer unknown paths of the API.
    guarded = _answered(_admitted(_no_such_endpoint, access), figures)
    beside = ("/metrics", "/tokenize", "/detokenize", "/tokenizer_info", "/load_model")
    for path in ("/v1", "/v1/{rest:all}", *beside):
        app.add_api_route(path, guarded, methods=ALL_METHODS)
    for path in ("/health", "/health/{rest:all}"):
        app.add_api_route(path, _answered(_no_such_endpoint, figures), methods=ALL_METHODS)
    return app


def _description_of(routes: list[BaseRoute]) -> Endpoint:
    """GET /v1/openapi.json: the API's routes."""

    async def openapi(request: Request) -> Response:
        return json_response(description.describe(routes))

    return openapi


def go_on_with_batches(app: FastAPI) -> None:
    """Go on with what an earlier process left unfinished; call it when the service is ready."""
    app.state.batches.go_on()


async def let_responses_end(app: FastAPI) -> None:
    """Return once every response and book is kept; call it when the service is closed."""
    await app.state.batches.close()
    await app.state.responses.settle()
    await app.state.books.close()


def _add_responses(add: Add, responses: Responses) -> None:
    add("POST", "/v1/responses", responses.create)
    add("POST", "/v1/responses/input_tokens", responses.input_tokens)
    one = "/v1/responses/{response_id}"
    add("GET", one, responses.retrieve)
    add("DELETE", one, responses.delete)
    add("POST", f"{one}/cancel", responses.cancel)
    add("GET", f"{one}/input_items", responses.input_items)


def _add_conversations(add: Add, conversations: Conversations) -> None:
    add("POST", "/v1/conversations", conversations.create)
    one = "/v1/conversations/{conversation_id}"
    add("GET", one, conversations.retrieve)
    add("POST", one, conversations.update)
    add("DELETE", one, conversations.delete)
    add("GET", f"{one}/items", conversations.items)
    add("POST", f"{one}/items", conversations.add_items)
    add("GET", f"{one}/items/{{item_id}}", conversations.item)
    add("DELETE", f"{one}/items/{{item_id}}", conversations.delete_item)


def _add_batches(add: Add, files: FileEndpoints, batches: BatchEndpoints) -> None:
    add("POST", "/v1/files", files.create)
    add("GET", "/v1/files", files.listed)
    add("GET", "/v1/files/{file_id}", files.retrieve)
    add("DELETE", "/v1/files/{file_id}", files.delete)
    add("GET", "/v1/files/{file_id}/content", files.content)
    add("POST", "/v1/batches", batches.create)
    add("GET", "/v1/batches", batches.listed)
    add("GET", "/v1/batches/{batch_id}", batches.retrieve)
    add("POST", "/v1/batches/{batch_id}/cancel", batches.cancel)


def _add_session_files(add: Add, files: SessionFiles) -> None:
    add("POST", "/v1/sessions/import", files.take_in)
    add("GET", "/v1/sessions/{session_id}/export", files.export)


def _add_kept_sessions(add: Add, kept: KeptSessions) -> None:
    add("GET", "/v1/sessions", kept.listed)
    add("POST", "/v1/sessions", kept.create)
    one = "/v1/sessions/{session_id}"
    add("GET", one, kept.retrieve)
    add("POST", one, kept.change)
    add("POST", f"{one}/fork", kept.fork)
    add("DELETE", f"{one}/messages/{{message_id}}", kept.delete_message)
    add("PUT", f"{one}/branches/{{name}}", kept.name_branch)
    add("DELETE", f"{one}/branches/{{name}}", kept.unname_branch)


def _with_head(method: str) -> list[str]:
    """The method, and HEAD with GET: monitors use HEAD, and the web server leaves out the body."""
    return ["GET", "HEAD"] if method == "GET" else [method]


def _admitted(endpoint: Endpoint, access: Access) -> Endpoint:
    """`endpoint` behind the API key."""

    async def admitted(request: Request) -> Response:
        access.admit(request)
        return await endpoint(request)

    return admitted


def _answered(endpoint: Endpoint, figures: Figures) -> Endpoint:
    """`endpoint` with its errors turned into OpenAI's answers."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ReaderGone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as raised:
            error = presentable(raised)
            figures.api_errors[error.code] += 1
            return json_response(
                error_body(error), status=error.http_status, headers=error_headers(error)
            )

    return answered


async def _no_such_endpoint(request: Request) -> Response:
    """Raises WrongMethod where the path exists, NotFound elsewhere."""
    allowed = sorted(
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] is Match.PARTIAL
        for method in getattr(route, "methods", None) or ()
    )
    if allowed:
        raise WrongMethod(
            f"{request.method} is not allowed here; allowed is {', '.join(allowed)}",
            {"Allow": ", ".join(allowed)},
        )
    offered = ", ".join(request.app.state.offered)
    raise NotFound(f"there is no endpoint {shown(request.url.path)}; this server has {offered}")
