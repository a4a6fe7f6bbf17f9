"""Ids of sessions, signed: a process with the same secret knows that another one made them.

So a page whose server was restarted, or that reaches another copy of it, keeps its id, and with it
the states that are stored under that id. Nobody can make up an id, and knowing one is what opens
its session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

NONCE_CHARS, SIGNATURE_CHARS = 32, 32


class SessionIds:
    """Makes and recognises ids. Without a secret they are this object's own."""

    def __init__(self, secret: str | None = None) -> None:
        given = secret.encode() if secret else secrets.token_bytes(32)
        self._key = hmac.new(given, b"ids of the page's sessions", hashlib.sha256).digest()

    def new(self) -> str:
        """192 random bits and their signature."""
        nonce = secrets.token_urlsafe(24)
        return nonce + self._signature(nonce)

    def is_ours(self, session_id: str) -> bool:
        """Whether this secret has signed the id."""
        nonce, signature = session_id[:NONCE_CHARS], session_id[NONCE_CHARS:]
        if not session_id.isascii() or len(session_id) != NONCE_CHARS + SIGNATURE_CHARS:
            return False
        return hmac.compare_digest(signature, self._signature(nonce))

    def _signature(self, nonce: str) -> str:
        return hmac.new(self._key, nonce.encode(), hashlib.sha256).hexdigest()[:SIGNATURE_CHARS]
