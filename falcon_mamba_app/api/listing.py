"""A part of a list, as OpenAI's endpoints ask for it and give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.errors import InvalidRequest

DEFAULT_LIMIT, MAX_PAGE = 20, 100
MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which items of a list: `limit` of them after `after`, in an order."""

    limit: int = DEFAULT_LIMIT
    order: str = "desc"
    after: str | None = None

    @classmethod
    def of(cls, query: QueryParams, *, default_limit: int = DEFAULT_LIMIT) -> PageQuery:
        """Raises InvalidRequest."""
        limit = number_between(query, "limit", default_limit, 1, MAX_PAGE)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"order is {shown(order)}; allowed are asc, desc", param="order")
        return cls(limit, order, query.get("after"))

    def page(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """OpenAI's list object, of all items from the first to the last. Raises InvalidRequest."""
        ordered = items if self.order == "asc" else items[::-1]
        if self.after is not None:
            places = [place for place, item in enumerate(ordered) if item["id"] == self.after]
            if not places:
                raise InvalidRequest(
                    f"after is {shown(self.after)}, which is no item of this list", param="after"
                )
            ordered = ordered[places[0] + 1 :]
        data = ordered[: self.limit]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(ordered) > len(data),
        }


def number_between(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """Raises InvalidRequest."""
    text = query.get(name, str(default))
    number = number_of(text)
    if number is None or not low <= number <= high:
        raise InvalidRequest(
            f"{name} is {shown(text)}; allowed are {low:,} to {high:,}", param=name
        )
    return number


def number_of(text: str) -> int | None:
    """The number that the text is, of at most nine digits; Python reads none of 5,000."""
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return int(text) if is_number else None


def whole_number(query: QueryParams, name: str, default: int) -> int:
    """Raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return default
    number = number_of(text)
    if number is None:
        raise InvalidRequest(f"{name} is {shown(text)}; it must be a whole number", param=name)
    return number
