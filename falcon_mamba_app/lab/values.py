"""Checks plain values, as they come out of JSON or a command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from falcon_mamba_app.errors import InvalidRequest

Values = Mapping[str, Any]


def whole(values: Values, name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number. Raises InvalidRequest with both limits."""
    value = values.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {_shown(value)}; allowed are whole numbers from {low:,} to {high:,}",
            param=name,
        )
    return value


def number(values: Values, name: str, low: float, high: float) -> float:
    """A finite number. Raises InvalidRequest with both limits."""
    value = values.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {_shown(value)}; allowed is {low:g} to {high:g}", param=name
        )
    return float(value)


def text(values: Values, name: str, max_chars: int, default: str = "") -> str:
    """A text. Raises InvalidRequest with both lengths."""
    value = values.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {_shown(value)}; allowed is a text", param=name)
    if len(value) > max_chars:
        raise InvalidRequest(
            f"{name} has {len(value):,} characters; allowed are {max_chars:,}", param=name
        )
    return value


def entries(values: Values, name: str, max_number: int) -> list[Any]:
    """A list; empty where there is none. Raises InvalidRequest with both lengths."""
    value = values.get(name, [])
    is_list = isinstance(value, list | tuple)
    if not is_list or len(value) > max_number:
        count = f"a list of {len(value):,}" if is_list else _shown(value)
        raise InvalidRequest(
            f"{name} is {count}; allowed is a list of at most {max_number:,}", param=name
        )
    return list(value)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
