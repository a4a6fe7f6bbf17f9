"""Puts the layers around the application, and makes the web server's options."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from falcon_mamba_app.middleware.allowed_hosts import AllowedHosts
from falcon_mamba_app.middleware.allowed_paths import AllowedPaths
from falcon_mamba_app.middleware.arrival import OneSpelling, RequestIds
from falcon_mamba_app.middleware.body_limits import BodyLimits
from falcon_mamba_app.middleware.connections import Connections, allow_files_for
from falcon_mamba_app.middleware.credentials import Credentials
from falcon_mamba_app.middleware.cross_origin import allow_origins
from falcon_mamba_app.middleware.cross_site import SameSiteOnly
from falcon_mamba_app.middleware.failures import Failures, is_news
from falcon_mamba_app.middleware.limited_protocol import limited_protocol
from falcon_mamba_app.middleware.login import Login
from falcon_mamba_app.middleware.memory_return import MemoryReturn
from falcon_mamba_app.middleware.page_bodies import PageBodies
from falcon_mamba_app.middleware.page_line import PageLine
from falcon_mamba_app.middleware.proxy_user import ProxyUser
from falcon_mamba_app.middleware.refused_requests import RefusedRequests
from falcon_mamba_app.middleware.root_path import RootPath
from falcon_mamba_app.middleware.security_headers import (
    SPACE_ANCESTORS,
    SPACE_SOURCES,
    SecurityHeaders,
)
from falcon_mamba_app.middleware.turns import MAX_ACCEPTED, Turns
from falcon_mamba_app.middleware.visitor_limits import VisitorLimits
from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.people.users import Users
from falcon_mamba_app.settings import Settings
from falcon_mamba_app.tally import Tally
from falcon_mamba_app.visitors import Visitors

logger = logging.getLogger(__name__)

# Longer than clients and proxies keep an idle connection (httpx and the OpenAI client 5 s, nginx
# 60 s): whoever closes it first must not be the one who answers, or a request meets a closed door.
KEEP_ALIVE_S = 75

# The networks of a Space's proxy and of Gradio's relay.
SPACE_PROXIES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
RELAY_ADDRESSES = ("127.0.0.1", "::1")


def protect(
    app: FastAPI,
    settings: Settings,
    *,
    refused: Counter[tuple[str, str]] | None = None,
    tally: Tally | None = None,
) -> None:
    """Put these layers around everything that `app` serves; the last one is outermost. Requests
    that any of them refuses are counted in `refused`, by surface and status. The `tally` adds what
    visitors spend at other copies of the server.
    """
    server, limits, is_space = settings.server, settings.limits, settings.platform.is_space
    is_relayed = is_space or server.share
    people = settings.people
    users = Users(Path(people.users)) if people.users else None
    keys = Keys(Path(people.keys)) if people.keys else None
    if settings.has_login:
        secret = (server.session_secret or secrets.token_urlsafe(32)).encode()
        credentials = Credentials(server.auth, server.api_key, secret, users, keys)
        app.add_middleware(Login, credentials=credentials, root_path=server.base_path)
    app.add_middleware(PageBodies)
    app.add_middleware(PageLine)
    app.add_middleware(AllowedPaths)
    app.add_middleware(SameSiteOnly, origins=server.cors_origins)
    app.add_middleware(MemoryReturn)
    app.add_middleware(
        BodyLimits,
        max_bytes=limits.max_body_bytes,
        max_state_bytes=limits.max_state_bytes,
        timeout_s=limits.body_timeout_s,
        max_message_chars=limits.max_message_chars,
    )
    if people.user_header:
        app.add_middleware(
            ProxyUser,
            header=people.user_header,
            trusted=server.trusted_proxies,
            is_only_door=not settings.has_login,
        )
    app.add_middleware(
        VisitorLimits,
        visitors=Visitors(limits, weights=server.key_weights, tally=tally),
        exempts_this_machine=not is_relayed,
    )
    if server.allowed_hosts:
        app.add_middleware(AllowedHosts, names=server.allowed_hosts)
    allow_origins(app, server.cors_origins)
    ancestors = server.frame_ancestors or (SPACE_ANCESTORS if is_space else ())
    app.add_middleware(Failures)
    sources = SPACE_SOURCES if is_space else {}
    app.add_middleware(
        SecurityHeaders, frame_ancestors=ancestors, sources=sources, root_path=server.base_path
    )
    app.add_middleware(OneSpelling)
    if server.base_path:
        app.add_middleware(RootPath, root_path=server.base_path)
    app.add_middleware(RefusedRequests, counts=Counter() if refused is None else refused)
    app.add_middleware(RequestIds)
    app.add_middleware(Turns)


def listening(settings: Settings) -> dict[str, Any]:
    """The web server's options: which proxies it trusts about addresses, how long it waits, and no
    log of requests.
    """
    server, limits = settings.server, settings.limits
    logging.getLogger("uvicorn.error").addFilter(is_news)
    trusted = [*server.trusted_proxies]
    if settings.platform.is_space:
        trusted += SPACE_PROXIES
    if server.share:
        trusted += RELAY_ADDRESSES
    connections = Connections(
        _max_connections(limits.max_connections), limits.visitor_max_connections, shared=trusted
    )
    return {
        "http": limited_protocol(
            connections,
            header_timeout_s=limits.header_timeout_s,
            reader_timeout_s=limits.reader_timeout_s,
        ),
        "ws": "none",
        "backlog": MAX_ACCEPTED,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "proxy_headers": bool(trusted),
        "forwarded_allow_ips": trusted,
        "access_log": False,
        "server_header": False,
        "log_level": "warning",
        "log_config": None,  # ours prints no messages of exceptions
    }


def _max_connections(wanted: int) -> int:
    """The wanted number, or fewer if the system has too few files: a connection without a file
    would wait unanswered.
    """
    room = allow_files_for(wanted)
    if wanted <= room:
        return wanted or room
    logger.warning("open files are limited: %d connections instead of %d", room, wanted)
    return room
