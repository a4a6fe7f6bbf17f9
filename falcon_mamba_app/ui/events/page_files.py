"""Files of the page that browsers ask for when they need them, and keep while they are the same."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from falcon_mamba_app.ui.view.scripts import PageFile, later_file

KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


def answer_with(file: PageFile, request: Request) -> Response:
    """The file; to be kept if it is of the version that is asked for."""
    is_known = request.query_params.get("v") == file.version
    return Response(file.data, media_type=file.media_type, headers=KEPT if is_known else {})


def add_page_files(app: FastAPI) -> None:
    """Offer them; to be called before the page is mounted at "/"."""

    async def later(request: Request) -> Response:
        return answer_with(later_file(), request)

    app.add_api_route("/scripts/later.js", later, methods=["GET"], include_in_schema=False)
