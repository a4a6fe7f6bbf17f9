"""Checks of numbers in requests; each says what was given and what is allowed."""

from __future__ import annotations

import math

from falcon_mamba_app.errors import InvalidRequest


def check_range(
    name: str, value: float, low: float, high: float, *, low_is_open: bool = False
) -> None:
    """Raises InvalidRequest for what is no finite number from `low` to `high`."""
    is_number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not is_number or not low <= value <= high or (low_is_open and value == low):
        bracket = "(" if low_is_open else "["
        raise InvalidRequest(
            f"{name} is {value!r}; allowed is {bracket}{low:g}, {high:g}]", param=name
        )


def check_integer(name: str, value: int, low: int, high: int) -> None:
    """Raises InvalidRequest for what is no whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {value!r}; allowed are whole numbers from {low} to {high}", param=name
        )
