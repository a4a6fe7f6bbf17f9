"""Named API keys that belong to users: a JSON file with their hashes, limits and ends.

A key is 256 random bits, so one round of SHA-256 keeps it as well as argon2 keeps a password, and
checking it takes a microsecond.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.people.files import WatchedFile, changing, checked_name

PREFIX = "fm-"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedKey:
    """One key. None for a limit is the server's own; `expires_s` is in seconds since 1970."""

    name: str
    user: str
    digest: str
    created_s: float
    expires_s: float | None = None
    weight: float = 1.0
    requests_per_minute: int | None = None
    replies_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_replies: int | None = None

    def __post_init__(self) -> None:
        checked_name(self.name, "key")
        checked_name(self.user, "user")
        if not 0.01 <= self.weight <= 100:
            raise SettingsError(f"the weight is {self.weight:g}; allowed is 0.01 to 100")
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise SettingsError(f"{name} is {limit}; it must be at least 1")

    def has_expired(self, now_s: float) -> bool:
        return self.expires_s is not None and now_s >= self.expires_s


LIMITS = ("requests_per_minute", "replies_per_minute", "tokens_per_minute", "max_replies")


class Keys:
    """The keys of one file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError."""
        self._file = WatchedFile(path, _parse)
        self._clock = clock

    @property
    def all(self) -> list[NamedKey]:
        return sorted(self._file.value.values(), key=lambda key: (key.user, key.name))

    def find(self, key: str) -> NamedKey | None:
        """The key with this secret, also one that has expired."""
        return self._file.value.get(_digest(key))

    def has(self, key: NamedKey) -> bool:
        """Whether the key is still in the file."""
        return key.digest in self._file.value

    def has_expired(self, key: NamedKey) -> bool:
        return key.has_expired(self._clock())

    def add(self, name: str, user: str, **limits: Any) -> str:
        """Make a key and return it, the only time that anybody sees it. Raises SettingsError for a
        name that is taken.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        key = NamedKey(
            name=name, user=user, digest=_digest(secret), created_s=self._clock(), **limits
        )
        with changing(self._file.path) as replace:
            keys = dict(self._file.value)
            if any(other.name == name for other in keys.values()):
                raise SettingsError(f"there is a key {name!r} already; remove it first")
            replace(_text({**keys, key.digest: key}))
        return secret

    def remove(self, name: str) -> None:
        """Raises SettingsError for a key that is not there."""
        with changing(self._file.path) as replace:
            keys = self._file.value
            kept = {digest: key for digest, key in keys.items() if key.name != name}
            if len(kept) == len(keys):
                raise SettingsError(f"there is no key {name!r} in {self._file.path}")
            replace(_text(kept))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(text: str) -> dict[str, NamedKey]:
    known = {field.name for field in fields(NamedKey)}
    try:
        entries = json.loads(text or '{"keys": []}')["keys"]
        if any(set(entry) - known for entry in entries):
            raise SettingsError("the file of keys is of a newer version of this app")
        keys = [NamedKey(**entry) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"the file of keys is damaged ({type(error).__name__}); make it with `falcon-mamba key"
            " add`"
        ) from None
    return {key.digest: key for key in keys}


def _text(keys: dict[str, NamedKey]) -> str:
    return json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=1) + "\n"
