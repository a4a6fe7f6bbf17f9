"""A file's bytes with a check, or encrypted: damage, truncation and foreign files are found.

The check covers the owner and the name too. So a file that was copied to another name, or below
another owner, does not open. Encryption is AES-256-GCM with a key of each owner's own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PLAIN, ENCRYPTED = b"FMS1P", b"FMS1E"
HEAD_BYTES, CHECK_BYTES, NONCE_BYTES, KEY_BYTES = 5, 32, 12, 32


class Damaged(Exception):
    """These are not the bytes that were sealed under this name."""


class Seal:
    """Seals and opens; with a secret it encrypts, and opens nothing that is not encrypted."""

    def __init__(self, secret: str | None = None) -> None:
        self._secret = secret.encode() if secret is not None else None

    def close(self, owner: str, name: str, data: bytes) -> bytes:
        """The bytes to store."""
        about = _about(owner, name)
        if self._secret is None:
            return b"".join((PLAIN, _check(about, data), data))
        nonce = secrets.token_bytes(NONCE_BYTES)
        return b"".join((ENCRYPTED, nonce, self._cipher(owner).encrypt(nonce, data, about)))

    def open(self, owner: str, name: str, sealed: bytes | memoryview) -> bytes:
        """What was sealed under exactly this owner and name. Raises Damaged."""
        about, sealed = _about(owner, name), memoryview(sealed)  # whose parts are no copies
        head = bytes(sealed[:HEAD_BYTES])
        if self._secret is None:
            data = sealed[HEAD_BYTES + CHECK_BYTES :]
            check = bytes(sealed[HEAD_BYTES : HEAD_BYTES + CHECK_BYTES])
            if head != PLAIN or not hmac.compare_digest(check, _check(about, data)):
                raise Damaged
            return bytes(data)
        nonce = bytes(sealed[HEAD_BYTES : HEAD_BYTES + NONCE_BYTES])
        if head != ENCRYPTED or len(nonce) != NONCE_BYTES:
            raise Damaged
        try:
            body = sealed[HEAD_BYTES + NONCE_BYTES :]
            return self._cipher(owner).decrypt(nonce, body, about)
        except InvalidTag:
            raise Damaged from None

    def _cipher(self, owner: str) -> AESGCM:
        assert self._secret is not None, "nothing to derive a key from"
        info = f"falcon-mamba state of {owner}".encode()
        derived = HKDF(hashes.SHA256(), length=KEY_BYTES, salt=None, info=info)
        return AESGCM(derived.derive(self._secret))


def _about(owner: str, name: str) -> bytes:
    return f"{owner}/{name}".encode()


def _check(about: bytes, data: bytes | memoryview) -> bytes:
    # SHA-256: processors have instructions for it; blake2b takes twice as long.
    digest = hashlib.sha256(about)
    digest.update(data)
    return digest.digest()
