"""The path under which a proxy shows this server, as /demo of https://example.org/demo/.

Whether the proxy leaves it in the requests or takes it out, everything behind this layer sees paths
that begin at "/". What browsers are told begins with the root path again: the page's own addresses
here, redirects and the cookie in `Login`, the events' in Gradio.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

# Of Gradio's page: where its relative addresses begin, and its one address that is not relative.
BASE, MANIFEST = b'<base href="./" />', b'href="/manifest.json"'


def under_root_path(html: bytes, root_path: str) -> bytes:
    """The page with its addresses under the root path, whether or not its own ends with a slash."""
    root = root_path.encode()
    html = html.replace(BASE, b'<base href="%s/" />' % root, 1)
    return html.replace(MANIFEST, b'href="%s/manifest.json"' % root, 1)


class RootPath:
    """Takes the root path off what is asked for."""

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
