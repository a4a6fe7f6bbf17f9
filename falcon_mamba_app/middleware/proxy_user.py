"""Believes a trusted proxy about who signed in there, and nobody else.

The connection itself says whether it is the proxy's: `PEER` in the request's state is its address,
which no header can change.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.http.errors import HttpError
from falcon_mamba_app.http.refusals import is_api, refusal
from falcon_mamba_app.visitors import Visitor

PEER = "peer"
MAX_NAME_CHARS = 200


class NotNamed(HttpError):
    """The page is for those whom the proxy names."""

    http_status = 401
    code = "login_required"


class ProxyUser:
    """Stores the name that the header gives as the request's person.

    If it `is_only_door`, the page is closed for requests without a name.
    """

    def __init__(
        self, app: ASGIApp, *, header: str, trusted: Sequence[str], is_only_door: bool
    ) -> None:
        self._app, self._is_only_door = app, is_only_door
        self._header = header.encode("latin-1")
        self._trusted = [ipaddress.ip_network(name) for name in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = self._name(scope)
        if name:
            visitor: Visitor = scope["state"]["visitor"]
            scope["state"] |= {"person": name, "visitor": visitor.as_person(name)}
        elif self._is_only_door and not is_api(scope["path"]):
            error = NotNamed("sign in at the proxy before this server, and come through it")
            await refusal(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _name(self, scope: Scope) -> str:
        """The name in the header of a trusted proxy's request; "" for none, or for several."""
        if not self._is_trusted(scope.get("state", {}).get(PEER, "")):
            return ""
        given = [value for header, value in scope["headers"] if header == self._header]
        name = unquote(given[0].decode("latin-1")).strip() if len(given) == 1 else ""
        return name if len(name) <= MAX_NAME_CHARS and name.isprintable() else ""

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._trusted)
