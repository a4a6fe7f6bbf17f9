"""Identifies the caller and the session of a request.

Without configured keys anyone may use the API. A session's id is derived from its owner and the
caller's prompt_cache_key with a secret, the process's own or the operator's. So it cannot be
guessed, and the same prompt_cache_key of two owners names two sessions. An owner is an API key, or
without keys an address.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

from starlette.requests import Request

from falcon_mamba_app.http.errors import WrongKey
from falcon_mamba_app.visitors import visitor_in

REUSE_HEADER = "x-prompt-reuse"
NO = ("off", "no", "false", "0")
FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip")


class Access:
    """Checks API keys and names sessions."""

    def __init__(
        self,
        api_keys: tuple[str, ...],
        session_secret: str | None = None,
        *,
        reuse_prompts: bool = True,
    ) -> None:
        self._api_keys = api_keys
        self._reuse_prompts = reuse_prompts
        self._secret = session_secret.encode() if session_secret else secrets.token_bytes(32)

    def admit(self, request: Request) -> None:
        """Store the caller's Visitor in the request's state. Raises WrongKey, and
        TooManyRequests after too many wrong keys from one address.
        """
        visitor = visitor_in(request.state)
        authorization = request.headers.get("authorization")
        if self._api_keys and authorization:
            visitor.check_attempts()
        try:
            request.state.visitor = visitor.with_key(self.check(authorization))
        except WrongKey:
            if authorization:
                visitor.count_wrong_key()
            raise
        if self._api_keys:
            visitor.count_right_key()

    def check(self, authorization: str | None) -> str:
        """The API key in the header, "" if no keys are configured. Raises WrongKey."""
        if not self._api_keys:
            return ""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise WrongKey("an API key is needed: send the header Authorization: Bearer KEY")
        # Headers arrive as Latin-1. Every key is compared, so the time reveals nothing about them.
        digest = given.strip().encode("latin-1", "replace")
        matches = [key for key in self._api_keys if hmac.compare_digest(key.encode(), digest)]
        if not matches:
            raise WrongKey("this API key is not known to the server")
        return matches[0]

    def place_of_key(self, request: Request) -> str | None:
        """The number of the caller's key, "1" for the first configured one; None without keys."""
        if not self._api_keys:
            return None
        return str(self._api_keys.index(self.check(request.headers.get("authorization"))) + 1)

    def reuse_id(self, request: Request, salt: str | None) -> str | None:
        """The name under which the caller's requests share states; None to share nothing.

        Behind a proxy that this server does not trust, strangers look like this machine.
        """
        visitor = visitor_in(request.state)
        is_forwarded = any(name in request.headers for name in FORWARDED)
        is_refused = request.headers.get(REUSE_HEADER, "").strip().lower() in NO
        if not self._reuse_prompts or is_refused or (is_forwarded and not visitor.owner):
            return None
        name = json.dumps(["reuse", visitor.owner, salt]).encode()
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()

    def session_id(self, owner: str, prompt_cache_key: str) -> str:
        """The id of the owner's session with this key."""
        name = json.dumps([owner, prompt_cache_key]).encode()
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()
