"""What opens the page: the one login that all share, or users with passwords of their own.

A login is a cookie that this server has signed. It names the user, and depends on the user's
password: a changed password, or a removed user, ends it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from falcon_mamba_app.people.keys import Keys
from falcon_mamba_app.people.users import Users

LOGIN_S = 7 * 24 * 3_600


@dataclass(frozen=True, slots=True)
class Signed:
    """A valid login; `person` is None for the one that all share."""

    person: str | None


class Credentials:
    """The pairs of user and password that open the page. An empty user matches any name."""

    def __init__(
        self,
        auth: str | None,
        api_keys: tuple[str, ...],
        secret: bytes,
        users: Users | None = None,
        keys: Keys | None = None,
    ) -> None:
        """Without `auth` and `users`, any of the API's keys is a password; of one that belongs to a
        user, it is that user who signs in.
        """
        user, _, password = (auth or "").partition(":")
        self._users, self._keys = users, None if auth or users else keys
        self._pairs = [(user, password)] if auth else []
        if not auth and users is None:
            self._pairs = [("", key) for key in api_keys]
        names = repr((auth, api_keys)).encode()
        self._key = hmac.new(secret, b"login" + names, hashlib.sha256).digest()
        # The name depends on the secret, because two servers on one host share a browser's cookies.
        self.cookie_name = f"falcon-mamba-{hashlib.sha256(self._key).hexdigest()[:8]}"

    async def match(self, user: str, password: str) -> tuple[bool, str | None]:
        """Whether the pair is right, and the person's name; the time of the check reveals nothing
        about it.
        """
        matches = [
            _equal(user if expected else "", expected) & _equal(password, secret)
            for expected, secret in self._pairs
        ]
        if any(matches):
            return True, None
        key = self._keys.find(password) if self._keys is not None else None
        if key is not None and self._keys is not None and not self._keys.has_expired(key):
            return True, key.user
        if self._users is None:
            return False, None
        is_right = await asyncio.to_thread(self._users.match, user, password)
        return is_right, user if is_right else None

    def sign(self, person: str | None, now_s: float) -> str:
        """A cookie's value for a login that ends LOGIN_S from now."""
        name = base64.urlsafe_b64encode((person or "").encode()).decode().rstrip("=")
        claim = f"{int(now_s) + LOGIN_S}.{secrets.token_urlsafe(12)}.{name}"
        return f"{claim}.{self._signature(claim, self._stamp(person))}"

    def read(self, cookie: str, now_s: float) -> Signed | None:
        """The login that the cookie stands for; None if it is not ours, or has ended."""
        claim, _, signature = cookie.rpartition(".")
        end, _, rest = claim.partition(".")
        try:
            encoded = rest.rpartition(".")[2]
            name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        person = name or None
        stamp = self._stamp(person)
        if stamp is None or not _equal(signature, self._signature(claim, stamp)):
            return None
        return Signed(person) if end.isdigit() and now_s < int(end) else None

    def _stamp(self, person: str | None) -> str | None:
        """What a login depends on beside the secret; None for somebody who is not there."""
        if person is None:
            return "" if self._pairs else None
        if self._keys is not None:
            known = [key for key in self._keys.all if not self._keys.has_expired(key)]
            return " ".join(key.digest for key in known if key.user == person) or None
        return self._users.hash_of(person) if self._users is not None else None

    def _signature(self, claim: str, stamp: str | None) -> str:
        text = f"{claim}\n{stamp}".encode("utf-8", "replace")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )
