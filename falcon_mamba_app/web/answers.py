"""A refusal that each kind of caller can read.

OpenAI's clients read "error", Gradio's page shows "detail"; people get the sentence either way.
"""

from __future__ import annotations

from starlette.responses import Response

from falcon_mamba_app.api.errors import error_body, error_headers
from falcon_mamba_app.api.transport import json_response
from falcon_mamba_app.errors import FalconMambaError


def refusal(error: FalconMambaError) -> Response:
    """The answer to a request that goes no further."""
    return json_response(
        {**error_body(error), "detail": str(error)},
        status=error.http_status,
        headers=error_headers(error),
    )
