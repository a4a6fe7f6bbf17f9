"""Values from text. Each function raises ValueError with the rest of a sentence."""

from __future__ import annotations

import ipaddress
import re

MIN_SECRET_CHARS = 16
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


def parse_int_or_auto(text: str) -> int | str:
    """A number, or the word that leaves it to the app."""
    return "auto" if text.strip().lower() == "auto" else parse_int(text)


def parse_key(text: str) -> str:
    """A key. An empty one is refused: it would leave the server open."""
    if not text.strip(" ,"):
        raise ValueError("the key is empty; leave the setting out, or give one")
    return text.strip()


def parse_keys(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in parse_key(text).split(",") if part.strip())


def parse_key_weights(text: str) -> tuple[tuple[str, float], ...]:
    """Pairs of a key and its weight. The error does not repeat the key."""
    weights = []
    for number, pair in enumerate(parse_keys(text), start=1):
        key, _, weight = pair.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not key or not 0.01 <= value <= 100:
            raise ValueError(f"pair {number} is not KEY=NUMBER with a number from 0.01 to 100")
        weights.append((key, value))
    return tuple(weights)


def parse_secret(text: str) -> str:
    """A secret. One that is too easy to guess is refused."""
    if len(text.strip()) < MIN_SECRET_CHARS:
        raise ValueError(
            f"it has {len(text.strip())} characters; at least {MIN_SECRET_CHARS} are needed"
        )
    return text.strip()


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_file(text: str) -> str:
    """The path of a file."""
    if not text.strip():
        raise ValueError("it must be the path of a file")
    return text


def parse_header_name(text: str) -> str:
    """The name of a header in lower case."""
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", text.strip()) is None:
        raise ValueError(f"{text!r} is no name of a header, such as X-Remote-User")
    return text.strip().lower()


def parse_networks(text: str) -> tuple[str, ...]:
    """Addresses and networks, in the form that `ipaddress` knows."""
    names = parse_names(text)
    for name in names:
        try:
            ipaddress.ip_network(name)
        except ValueError:
            raise ValueError(f"{name!r} is no address or network, such as 10.0.0.0/8") from None
    return names


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins of web pages: scheme, host and perhaps a port, nothing more."""
    return _parse_origins(text, r"https?://[A-Za-z0-9.\[\]:-]+")


def parse_origin_patterns(text: str) -> tuple[str, ...]:
    """The same, where https://*.example.com means every name below."""
    return _parse_origins(text, r"https?://(\*\.)?[A-Za-z0-9.\[\]:-]+")


def _parse_origins(text: str, pattern: str) -> tuple[str, ...]:
    origins = tuple(name.rstrip("/") for name in parse_names(text))
    for origin in origins:
        if re.fullmatch(pattern, origin) is None:
            raise ValueError(f"{origin!r} is no origin, such as https://example.com")
    return origins


def parse_root_path(text: str) -> str:
    """ "/demo" from "demo/"; an address stays one, without the slash at its end."""
    path = text.strip().rstrip("/")
    if path and not path.startswith(("http://", "https://", "/")):
        path = f"/{path}"
    if re.fullmatch(r"(https?://[A-Za-z0-9.\[\]:-]+)?(/[A-Za-z0-9._~-]+)*", path) is None:
        raise ValueError(f"{text!r} is no path, such as /demo, and no address that ends with one")
    return path


def parse_database_url(text: str) -> str:
    """A URL of PostgreSQL. The error does not repeat it, because it may hold a password."""
    if re.match(r"postgres(ql)?://", text.strip()) is None:
        raise ValueError("it is no URL that begins with postgresql://")
    return text.strip()


def parse_state_store(text: str) -> str:
    """A folder's path, the address of a bucket, "auto" or "off"."""
    scheme, is_address, _ = text.partition("://")
    if not text.strip() or (is_address and scheme not in ("s3", "gs", "az")):
        raise ValueError(f"{text!r} is no folder, s3://, gs:// or az:// address, auto or off")
    return text.strip()


def parse_copy_name(text: str) -> str:
    """The name of a copy: it stands in a cookie and at the end of ids."""
    if re.fullmatch(r"[a-z0-9]{1,16}", text.strip()) is None:
        raise ValueError(f"{text!r} is no name; 1 to 16 small letters and digits are")
    return text.strip()


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
