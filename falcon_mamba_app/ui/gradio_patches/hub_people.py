"""Tells the layers behind Gradio's sign-in who somebody is at Hugging Face.

`gr.LoginButton` makes Gradio keep the visitor's account in a signed cookie, which it reads in the
mounted app only. This layer stands behind that and puts the name where the app looks for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gradio.routes import App
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from falcon_mamba_app.visitors import Visitor

PREFIX = "hf:"  # so that nobody's account there is a user's name here


def name_hub_people(mounted: App) -> None:
    """Add the layer innermost, behind the one that reads the cookie."""
    mounted.user_middleware.append(Middleware(HubPeople))


class HubPeople:
    """Stores the account's name as the request's person."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.time) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._name(scope.get("session")) if scope["type"] == "http" else None
        if name is not None:
            state = scope["state"]
            visitor: Visitor = state["visitor"]
            state["person"], state["visitor"] = name, visitor.as_person(name)
        await self._app(scope, receive, send)

    def _name(self, session: Any) -> str | None:
        info = session.get("oauth_info") if isinstance(session, dict) else None
        if not isinstance(info, dict) or not isinstance(info.get("userinfo"), dict):
            return None
        name, end_s = info["userinfo"].get("preferred_username"), info.get("expires_at")
        has_ended = isinstance(end_s, int | float) and end_s < self._clock()
        return PREFIX + name if isinstance(name, str) and name and not has_ended else None
