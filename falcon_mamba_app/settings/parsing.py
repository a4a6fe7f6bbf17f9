"""Values from text. Each function raises ValueError with the rest of a sentence."""

from __future__ import annotations

import re

BYTE_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def parse_bytes(text: str) -> int:
    """Bytes from "500MB", "2 GiB" or a plain number."""
    units = {name.lower(): factor for name, factor in BYTE_UNITS.items()}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w*)", text.strip())
    if match is None or match[2].lower() not in units:
        names = ", ".join(filter(None, BYTE_UNITS))
        raise ValueError(f"{text!r} is no size; write bytes, or a number with {names}")
    return int(float(match[1]) * units[match[2].lower()])


def parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def parse_key(text: str) -> str:
    """A lock that was asked for and is empty would leave the door open."""
    if not text.strip(" ,"):
        raise ValueError("the key is empty; leave the setting out, or give one")
    return text.strip()


def parse_keys(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in parse_key(text).split(",") if part.strip())


def parse_login(text: str) -> str:
    user, _, password = text.partition(":")
    if not user.strip() or not password.strip():
        raise ValueError("it must be USER:PASSWORD, both not empty")
    return text


def parse_bool(text: str) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[text.strip().lower()]
