"""Limits the host names under which the server answers, against DNS rebinding: a foreign name that
points here.

/health answers under every name: a container's health check knows only addresses, and the answer
holds nothing private.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.http.errors import HttpError
from falcon_mamba_app.http.refusals import refusal

HEALTH = "/health"


class UnknownHost(HttpError):
    """The request names a host that this server is not."""

    http_status = 400
    code = "unknown_host"


class AllowedHosts:
    """Refuses requests for hosts other than `names`; "*.example.com" is every name below it."""

    def __init__(self, app: ASGIApp, *, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_checked = scope["type"] == "http" and not _is_health(scope["path"])
        if is_checked and not self._is_ours(scope):
            error = UnknownHost("this server does not answer under this name; see --allowed-hosts")
            await refusal(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        host = Headers(scope=scope).get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        parents = {f"*.{name.split('.', count)[-1]}" for count in range(1, name.count(".") + 1)}
        return not self._names.isdisjoint({"*", name, name.strip("[]"), *parents})


def _is_health(path: str) -> bool:
    return path == HEALTH or path.startswith(f"{HEALTH}/")
