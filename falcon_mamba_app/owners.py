"""Whose conversations are kept, and under which name: the one rule, for the page and the API.

An owner is a person who signed in under a name of their own, or whoever sits at this machine while
nobody else can reach the server. Everybody else has none: what they say stays in memory, and goes
with their page. `docs/security.md` says the same for people.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Protocol

from falcon_mamba_app.settings import Settings

THIS_MACHINE = "this machine"
ONE_LOGIN = "the login"
# What a proxy adds to the requests that it passes on.
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via")


class Asking(Protocol):
    """A request, as Starlette and Gradio both have it."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def client(self) -> Any: ...
    @property
    def state(self) -> Any: ...


class Owners:
    """Knows from the settings who can be told apart and who can be trusted to be at the machine."""

    def __init__(self, settings: Settings) -> None:
        server = settings.server
        self._mode = settings.library.keep_conversations
        # A proxy or a relay on this machine passes the requests of others on.
        self._is_private = (
            is_loopback(server.host)
            and not server.share
            and not settings.platform.is_space
            and not server.trusted_proxies
        )
        self._has_login = bool(server.auth or server.api_key)

    @property
    def may_keep(self) -> bool:
        """Whether anybody's conversations may be kept at all."""
        return self._mode != "off"

    def of(self, request: Asking) -> str | None:
        """The owner of what is said in this request; None where nothing is kept.

        A layer that knows who signed in leaves `person` in the request's state.
        """
        if not self.may_keep:
            return None
        person = getattr(request.state, "person", None)
        if isinstance(person, str) and person:
            return f"person {person}"
        if self._is_private and _is_at_this_machine(request):
            return THIS_MACHINE
        return ONE_LOGIN if self._mode == "on" and self._has_login else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address, or the name without a port."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_at_this_machine(request: Asking) -> bool:
    """From here, straight, and under a name of this machine: a page of another site that points its
    own name here does not get that far.
    """
    client = request.client
    address = getattr(client, "host", None) or (client[0] if isinstance(client, tuple) else "")
    if any(name in request.headers for name in FORWARDED) or not is_loopback(str(address)):
        return False
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name)
