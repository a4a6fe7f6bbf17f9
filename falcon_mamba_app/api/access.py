"""Who asks, and which session is theirs.

Without configured keys everybody may use the API. A session's id is derived from the API key and
the caller's prompt_cache_key with a secret that lives as long as the process: nobody can guess it,
and the same prompt_cache_key under two API keys names two sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

from falcon_mamba_app.api.errors import WrongKey


class Access:
    """Checks API keys and names sessions."""

    def __init__(self, api_keys: tuple[str, ...]) -> None:
        self._api_keys = api_keys
        self._secret = secrets.token_bytes(32)

    def check(self, authorization: str | None) -> str:
        """The API key that the header carries, "" where none is configured. Raises WrongKey."""
        if not self._api_keys:
            return ""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise WrongKey("an API key is needed: send the header Authorization: Bearer KEY")
        # Headers arrive as Latin-1. Every key is compared, so time tells nothing about them.
        digest = given.strip().encode("latin-1", "replace")
        matches = [key for key in self._api_keys if hmac.compare_digest(key.encode(), digest)]
        if not matches:
            raise WrongKey("this API key is not known to the server")
        return matches[0]

    def session_id(self, api_key: str, prompt_cache_key: str) -> str:
        """The session that the caller means."""
        name = json.dumps([api_key, prompt_cache_key]).encode()
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()
