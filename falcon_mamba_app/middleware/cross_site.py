"""Stops web pages of other sites from acting here in their visitors' names (CSRF).

Browsers report the origin of a request. A request from another site that would change something is
refused, unless that site is allowed: a form or a script there could send it without the visitor's
consent. Over plain HTTP, as in a home network, browsers report only the origin header, which must
name this server.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

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
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins:
            return False
        if site is not None:
            return site in ("cross-site", "same-site")
        return origin is not None and not _is_own(origin, headers)


def _is_own(origin: str, headers: Headers) -> bool:
    """Whether the page's origin is the requested address, as the browser or its proxy reports it.

    A page of another site can set neither header.
    """
    host = urlsplit(origin).netloc.lower()
    named = (headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower())
    return bool(host) and host in named
