"""Formats a refusal for the client of its path.

At the API's paths OpenAI's clients read "error"; Gradio's page and clients show "detail".
"""

from __future__ import annotations

from starlette.responses import Response

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.http.errors import error_body, error_headers
from falcon_mamba_app.http.transport import json_response

API = "/v1"
# Paths guarded like the API, or not at all: load balancers check there that the server is alive.
BESIDE_API = (
    *("/metrics", "/health", "/tokenize", "/detokenize", "/tokenizer_info"),
    "/load_model",  # what `transformers chat` asks first
)


def is_api(path: str) -> bool:
    """Whether the API answers this path, and not the page."""
    return path in (API, *BESIDE_API) or path.startswith((f"{API}/", "/health/"))


def refusal(error: FalconMambaError, path: str) -> Response:
    """The answer to a refused request for `path`."""
    return json_response(
        error_body(error) if is_api(path) else {"detail": str(error)},
        status=error.http_status,
        headers=error_headers(error),
    )
