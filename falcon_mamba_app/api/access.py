"""Identifies the caller and the session of a request.

Without configured keys anyone may use the API. A session's id is derived from its owner and the
caller's prompt_cache_key with a secret, the process's own or the operator's. So it cannot be
guessed, and the same prompt_cache_key of two owners names two sessions. An owner is a person with
all of their keys, an API key of nobody, or without keys an address.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from starlette.requests import Request

from falcon_mamba_app.http.errors import WrongKey
from falcon_mamba_app.people.keys import LIMITS, Keys, NamedKey
from falcon_mamba_app.rates import Allowance
from falcon_mamba_app.visitors import visitor_in

REUSE_HEADER = "x-prompt-reuse"
NO = ("off", "no", "false", "0")
FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip")


CALLER_END = "."  # as `GenerationService.forget` has it
MAX_NAMED = 20_000  # names of sessions at hand, the longest unused ones forgotten


class Access:
    """Checks API keys and names sessions."""

    def __init__(
        self,
        api_keys: tuple[str, ...],
        session_secret: str | None = None,
        *,
        reuse_prompts: bool = True,
        keys: Keys | None = None,
        is_locked: bool = False,
    ) -> None:
        """`keys` belong to users. Without any keys the API is open, unless it `is_locked`."""
        self._api_keys, self._keys = api_keys, keys
        self._is_locked = is_locked or bool(api_keys) or keys is not None
        self._reuse_prompts = reuse_prompts
        self._secret = session_secret.encode() if session_secret else secrets.token_bytes(32)
        self._named: OrderedDict[str, None] = OrderedDict()

    def admit(self, request: Request) -> None:
        """Store the caller's Visitor in the request's state, and who it is. Raises WrongKey, and
        TooManyRequests after too many wrong keys from one address.
        """
        visitor = visitor_in(request.state)
        authorization = _key_header(request)
        if not self._is_locked or (visitor.person is not None and not authorization):
            return  # anybody, or somebody whom a trusted proxy has named
        if authorization:
            visitor.check_attempts()
        try:
            key = self._find(authorization)
        except WrongKey:
            if authorization:
                visitor.count_wrong_key()
            raise
        if isinstance(key, NamedKey):
            allowance = _allowance_of(key, partial(self._check_named, key))
            request.state.visitor = visitor.as_person(key.user, key.name, allowance)
            request.state.person, request.state.key_name = key.user, key.name
            request.state.visitor.count_request()
        else:
            request.state.visitor = visitor.with_key(key)
            request.state.key_name = str(self._api_keys.index(key) + 1)
        visitor.count_right_key()

    def _find(self, authorization: str | None) -> str | NamedKey:
        """The key in the header. Raises WrongKey."""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise WrongKey("an API key is needed: send the header Authorization: Bearer KEY")
        # Headers arrive as Latin-1. Every key is compared, so the time reveals nothing about them.
        digest = given.strip().encode("latin-1", "replace")
        matches = [key for key in self._api_keys if hmac.compare_digest(key.encode(), digest)]
        if matches:
            return matches[0]
        named = self._keys.find(given.strip()) if self._keys is not None else None
        if named is None:
            raise WrongKey("this API key is not known to the server")
        self._check_named(named)
        return named

    def _check_named(self, key: NamedKey) -> None:
        """Raises WrongKey for a key that has expired or was removed since."""
        assert self._keys is not None, f"{key.name} is of no file"
        if self._keys.has_expired(key):
            raise WrongKey(f"the API key {key.name} has expired")
        if not self._keys.has(key):
            raise WrongKey(f"the API key {key.name} was removed")

    def name_of_key(self, request: Request) -> str | None:
        """The name of the caller's key, or the number of one without a name; None without keys."""
        name: str | None = getattr(request.state, "key_name", None)
        return name

    def reuse_id(self, request: Request, salt: str | None) -> str | None:
        """The name under which the caller's requests share states; None to share nothing.

        Behind a proxy that this server does not trust, strangers look like this machine.
        """
        visitor = visitor_in(request.state)
        is_forwarded = any(name in request.headers for name in FORWARDED)
        is_refused = request.headers.get(REUSE_HEADER, "").strip().lower() in NO
        if not self._reuse_prompts or is_refused or (is_forwarded and not visitor.owner):
            return None
        return self._name(visitor.owner, ["reuse", visitor.owner, salt])

    def session_id(self, owner: str, prompt_cache_key: str) -> str:
        """The id of the owner's session with this key."""
        return self._name(owner, [owner, prompt_cache_key])

    def names_of(self, owner: str) -> list[str]:
        """All names that were made for the owner, as far as they are remembered, and last the one
        that stands for all of their sessions in a store of states.
        """
        start = self._caller(owner)
        return [*(name for name in self._named if name.startswith(start)), start]

    def _name(self, owner: str, what: list[str | None]) -> str:
        name = self._caller(owner) + self._signed(what)
        self._named[name] = None
        self._named.move_to_end(name)
        if len(self._named) > MAX_NAMED:
            self._named.popitem(last=False)
        return name

    def _caller(self, owner: str) -> str:
        """What the names of one owner's sessions begin with, and nobody else's."""
        return self._signed(["caller", owner])[:32] + CALLER_END

    def _signed(self, what: list[str | None]) -> str:
        return hmac.new(self._secret, json.dumps(what).encode(), hashlib.sha256).hexdigest()


def _allowance_of(key: NamedKey, check_admitted: Callable[[], None]) -> Allowance:
    limits = {limit: getattr(key, limit) for limit in LIMITS}
    return Allowance(weight=key.weight, check_admitted=check_admitted, **limits)


def _key_header(request: Request) -> str | None:
    """The Authorization header, or what it would be of a key sent as Anthropic's clients do."""
    key = request.headers.get("x-api-key")
    return request.headers.get("authorization") or (f"Bearer {key}" if key else None)
