"""The path under which a proxy shows this server, such as /demo of https://example.org/demo/.

The proxy may keep it in requests or remove it; inside this layer paths always begin at "/".
Addresses sent to browsers begin with the root path again: this module adds it to the page's own
addresses, `Login` to redirects and the cookie, and Gradio to those of events.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

# In Gradio's page: the base of its relative addresses, and its only absolute address.
BASE, MANIFEST = b'<base href="./" />', b'href="/manifest.json"'


def under_root_path(html: bytes, root_path: str) -> bytes:
    """The page with its addresses under the root path, whether or not its own ends with a slash."""
    root = root_path.encode()
    html = html.replace(BASE, b'<base href="%s/" />' % root, 1)
    return html.replace(MANIFEST, b'href="%s/manifest.json"' % root, 1)


class RootPath:
    """Removes the root path from requested paths."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == self._root_path or path.startswith(f"{self._root_path}/"):
                start = len(self._root_path)
                raw: bytes = scope.get("raw_path") or path.encode()
                scope = {**scope, "path": path[start:] or "/", "raw_path": raw[start:] or b"/"}
        await self._app(scope, receive, send)
