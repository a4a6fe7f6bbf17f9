"""Security headers for browsers: what the page may load, who may frame it, what stays private.

The page's own scripts are allowed by their hashes, so a model's text can never run as a script.
Gradio evaluates the JavaScript of its events, hence 'unsafe-eval'. It sets styles everywhere, hence
'unsafe-inline' for styles.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_mamba_app.middleware.root_path import under_root_path

INLINE_SCRIPT = re.compile(
    rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE
)
# Gradio's page takes the contents of its head from here, and inserts them itself.
GRADIO_CONFIG = re.compile(rb"window\.gradio_config = (\{.*?\});?\s*</script>", re.DOTALL)
# A Space shows its page in a frame of the hub, and at its own address.
SPACE_ANCESTORS = ("https://huggingface.co", "https://*.hf.space")
# Hosts that Gradio's header of a Space loads from: the owner's data, and fonts.
SPACE_SOURCES = {
    "connect-src": "https://huggingface.co",
    "img-src": "https://huggingface.co https://cdn-avatars.huggingface.co",
    "style-src": "https://fonts.googleapis.com",
    "font-src": "https://fonts.gstatic.com",
}
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NO_SOURCES: Mapping[str, str] = MappingProxyType({})
GZIP_LEVEL = 5  # 115 kB in 2 ms to 22 kB

# Files that are the same for all visitors, and are named by their contents.
CACHEABLE = ("/assets/", "/static/", "/svelte/", "/theme.css", "/favicon.ico")


class SecurityHeaders:
    """Adds the headers to every answer. HTML is held back until its scripts are known."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        frame_ancestors: Iterable[str] = (),
        sources: Mapping[str, str] = NO_SOURCES,
        root_path: str = "",
    ) -> None:
        """`sources` are further hosts that a directive of the policy allows."""
        self._app = app
        self._root_path = root_path
        self._ancestors = " ".join(("'self'", *frame_ancestors))
        self._sources = sources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepts_gzip = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        if scope["path"] == "/":  # compressed here, after its scripts are hashed
            scope = {**scope, "headers": _without(scope["headers"], b"accept-encoding")}
        start: Message | None = None
        html = bytearray()

        async def send_on(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                self._add(headers, scope["path"])
                if headers.get("content-type", "").startswith("text/html"):
                    start = message
                    return
                headers["Content-Security-Policy"] = self._policy(())
            if start is None:
                await send(message)
                return
            html.extend(message.get("body", b""))
            if not message.get("more_body"):
                await self._send_html(start, bytes(html), send, is_compressed=accepts_gzip)

        await self._app(scope, receive, send_on)

    async def _send_html(
        self, start: Message, html: bytes, send: Send, *, is_compressed: bool
    ) -> None:
        headers = MutableHeaders(scope=start)
        if self._root_path and html:
            html = under_root_path(html, self._root_path)
            headers["Content-Length"] = str(len(html))
        headers["Content-Security-Policy"] = self._policy(inline_scripts(html))
        if is_compressed and html:
            html = gzip.compress(html, GZIP_LEVEL)
            headers["Content-Encoding"], headers["Vary"] = "gzip", "Accept-Encoding"
            headers["Content-Length"] = str(len(html))
        await send(start)
        await send({"type": "http.response.body", "body": html})

    def _add(self, headers: MutableHeaders, path: str) -> None:
        for name, value in ALWAYS.items():
            headers[name] = value
        if not path.startswith(CACHEABLE):
            headers.setdefault("Cache-Control", "no-store")

    def _policy(self, scripts: Iterable[bytes]) -> str:
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
            for script in scripts
        ]
        policy = {
            "default-src": "'self'",
            "script-src": " ".join(("'self' 'unsafe-eval'", *hashes)),
            "style-src": "'self' 'unsafe-inline'",
            "connect-src": "'self'",
            "img-src": "'self' data: blob:",
            "media-src": "'self' data: blob:",
            "font-src": "'self' data:",
            "worker-src": "'self' blob:",
            "object-src": "'none'",
            "base-uri": "'self'",
            "form-action": "'self'",
            "frame-ancestors": self._ancestors,
        }
        for directive, others in self._sources.items():
            policy[directive] += f" {others}"
        return "; ".join(f"{directive} {sources}" for directive, sources in policy.items())


def inline_scripts(html: bytes) -> list[bytes]:
    """The scripts in the page, and those that Gradio adds from its configuration."""
    scripts = INLINE_SCRIPT.findall(html)
    config = GRADIO_CONFIG.search(html)
    head = json.loads(config[1]).get("head") if config else None
    return scripts + INLINE_SCRIPT.findall((head or "").encode())


def _without(headers: list[tuple[bytes, bytes]], name: bytes) -> list[tuple[bytes, bytes]]:
    return [header for header in headers if header[0] != name]
