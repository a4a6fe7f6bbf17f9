"""Users and their passwords: a text file of lines NAME:HASH, with argon2id's hashes."""

from __future__ import annotations

import secrets
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.people.files import WatchedFile, changing, checked_name

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 8, 1_000
HEADER = "# Users of Falcon Mamba, changed by `falcon-mamba user`. NAME:HASH\n"


class Users:
    """The users of one file."""

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        """Raises SettingsError."""
        self._file = WatchedFile(path, _parse)
        self._hasher = hasher or PasswordHasher()
        # Checked for unknown names, so that the time of an answer tells no names.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    @property
    def names(self) -> list[str]:
        return sorted(self._file.value)

    def hash_of(self, name: str) -> str | None:
        """The hash of the user's password; None for nobody."""
        return self._file.value.get(name)

    def match(self, name: str, password: str) -> bool:
        """Whether it is the user's password. Takes 50 ms and 64 MB: call it on a thread."""
        known = self._file.value.get(name)
        if len(password) > MAX_PASSWORD_CHARS:
            return False
        try:
            self._hasher.verify(known or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return known is not None

    def add(self, name: str, password: str) -> bool:
        """Add a user, or change the password of one; returns whether the user is new."""
        checked_name(name, "user")
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise SettingsError(
                f"the password has {len(password)} characters; allowed are {MIN_PASSWORD_CHARS} to"
                f" {MAX_PASSWORD_CHARS}"
            )
        with changing(self._file.path) as replace:
            users = dict(self._file.value)
            is_new = name not in users
            replace(_text({**users, name: self._hasher.hash(password)}))
        return is_new

    def remove(self, name: str) -> None:
        """Raises SettingsError for a user who is not there."""
        with changing(self._file.path) as replace:
            users = dict(self._file.value)
            if users.pop(name, None) is None:
                raise SettingsError(f"there is no user {name!r} in {self._file.path}")
            replace(_text(users))


def _parse(text: str) -> dict[str, str]:
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.partition(":")
        if not hashed.startswith("$argon2"):
            raise SettingsError(
                f"line {number} of the users is not NAME:HASH with a hash of argon2; add users with"
                " `falcon-mamba user add`"
            )
        users[checked_name(name, "user")] = hashed.strip()
    return users


def _text(users: dict[str, str]) -> str:
    return HEADER + "".join(f"{name}:{users[name]}\n" for name in sorted(users))
