"""Web pages elsewhere may not act here in their visitors' names.

Browsers say where a request comes from. One from another site that would change something is
refused, unless that site is allowed; a form or a script there could send it without asking.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.http.errors import HttpError
from falcon_mamba_app.http.refusals import refusal

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class CrossSite(HttpError):
    """Another site's page sent the request."""

    http_status = 403
    code = "cross_site_request"


class SameSiteOnly:
    """Refuses what other sites' pages send, except from `origins`."""

    def __init__(self, app: ASGIApp, *, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_foreign(scope):
            error = CrossSite("web pages of other sites may not send this; see --cors-origins")
            await refusal(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        if scope["method"] in SAFE_METHODS:
            return False
        headers = Headers(scope=scope)
        is_cross = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return is_cross and headers.get("origin") not in self._origins
