"""A refusal in the words of the door it was asked at.

OpenAI's clients read "error", at the API's paths; Gradio's page and clients show "detail".
"""

from __future__ import annotations

from starlette.responses import Response

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.http.errors import error_body, error_headers
from falcon_mamba_app.http.transport import json_response

API = "/v1"
# Guarded as the API is, or by nothing: what tells a load balancer that the server lives.
BESIDE_API = ("/metrics", "/health", "/tokenize", "/detokenize", "/tokenizer_info")


def is_api(path: str) -> bool:
    """Whether the API answers there, and not the page."""
    return path in (API, *BESIDE_API) or path.startswith((f"{API}/", "/health/"))


def refusal(error: FalconMambaError, path: str) -> Response:
    """The answer to a request for `path` that goes no further."""
    return json_response(
        error_body(error) if is_api(path) else {"detail": str(error)},
        status=error.http_status,
        headers=error_headers(error),
    )
