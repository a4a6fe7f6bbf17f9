"""Answers invalid calls, which Gradio treats as its own failures: unknown events, too few values.

Gradio answers 500 to them, or 200 with an empty event, and prints a traceback. Here they are the
caller's errors: 404 or 422, with a sentence. tests/ui/test_wrong_calls.py fails if a new version
has moved the replaced parts.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from gradio import route_utils, routes

NO_SUCH_EVENT = "this page has no such event or endpoint; /gradio_api/info lists the endpoints"

_routes: Any = routes
_get_fn, _client_utils = route_utils.get_fn, _routes.client_utils


def refuse_wrong_calls(page: routes.App) -> None:
    """From now on, by this page; what is replaced is so for the whole process."""
    page.add_exception_handler(KeyError, _no_such_endpoint)
    route_utils.get_fn = _event_with_its_values
    _routes.client_utils = SimpleNamespace(
        **{**vars(_client_utils), "construct_args": _values_of_parameters}
    )


async def _no_such_endpoint(request: Request, error: Exception) -> JSONResponse:
    """/call/v2/NAME looks the name up in a dictionary. Raises any other KeyError, a bug."""
    if error.args != (f"/{request.path_params.get('api_name')}",):
        raise error
    return JSONResponse({"detail": NO_SUCH_EVENT}, 404)


def _event_with_its_values(blocks: Any, api_name: str | None, body: Any) -> Any:
    try:
        event = _get_fn(blocks, api_name, body)
    except (KeyError, route_utils.FnIndexInferError):
        raise HTTPException(404, NO_SUCH_EVENT) from None
    # Named endpoints are looked up once more by their index, when their values are in order.
    if body.fn_index is not None and len(body.data) < len(event.inputs):
        raise HTTPException(
            422,
            f"data has {len(body.data)} of the {len(event.inputs)} values that this event takes",
        )
    return event


def _values_of_parameters(*arguments: Any) -> Any:
    try:
        return _client_utils.construct_args(*arguments)
    except TypeError as error:  # a sentence about the names of parameters
        raise HTTPException(422, str(error).partition(" Please click")[0]) from None
