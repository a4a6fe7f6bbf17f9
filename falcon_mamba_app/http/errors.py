"""Errors as OpenAI's clients expect them: a status, and {"error": {message, type, param, code}}.

The application's errors carry their own status and code. Errors that only HTTP has are defined
here. An unexpected error is answered with a generic sentence. The log holds its kind and its place,
never its message, which may quote the user.
"""

from __future__ import annotations

import logging
from typing import Any

from falcon_mamba_app.errors import FalconMambaError, InvalidRequest, NotFound, origin_of

logger = logging.getLogger(__name__)


class HttpError(FalconMambaError):
    """The request fails before it says what to generate. `headers` go with the answer."""

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class WrongKey(HttpError):
    """The API key is missing or wrong."""

    http_status = 401
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": "Bearer"})


class WrongMethod(HttpError):
    """The path exists, the method does not."""

    http_status = 405
    code = "method_not_allowed"


class BodyTooLarge(HttpError):
    """The body has more bytes than the endpoint accepts."""

    http_status = 413
    code = "request_too_large"


class WrongContentType(HttpError):
    """The body is not declared as JSON."""

    http_status = 415
    code = "unsupported_media_type"


class ModelNotFound(NotFound):
    """The request names a model that this server does not serve."""

    code = "model_not_found"


def presentable(error: Exception) -> FalconMambaError:
    """`error` if it may be shown; otherwise log its origin and return a generic error."""
    if isinstance(error, FalconMambaError):
        return error
    logger.error("unexpected %s", origin_of(error))
    return FalconMambaError("the server failed unexpectedly; its log says where")


def error_body(error: FalconMambaError) -> dict[str, Any]:
    """OpenAI's error object."""
    is_callers_fault = 400 <= error.http_status < 500
    return {
        "error": {
            "message": str(error),
            "type": "invalid_request_error" if is_callers_fault else "server_error",
            "param": error.param if isinstance(error, InvalidRequest) else None,
            "code": error.code,
        }
    }


def error_headers(error: FalconMambaError) -> dict[str, str]:
    """Headers of the error's answer: when to retry, how to sign in, which methods are allowed."""
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers
