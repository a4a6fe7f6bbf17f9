"""A part of a list, as OpenAI's endpoints ask for it and give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.errors import InvalidRequest

DEFAULT_LIMIT, MAX_PAGE = 20, 100


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which items of a list: `limit` of them after `after`, in an order."""

    limit: int = DEFAULT_LIMIT
    order: str = "desc"
    after: str | None = None

    @classmethod
    def of(cls, query: QueryParams, *, default_limit: int = DEFAULT_LIMIT) -> PageQuery:
        """Raises InvalidRequest."""
        limit = whole_number(query, "limit", default_limit)
        order = query.get("order", "desc")
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"limit is {limit}; allowed are 1 to {MAX_PAGE}", param="limit")
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


def whole_number(query: QueryParams, name: str, default: int) -> int:
    """Raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidRequest(f"{name} is {shown(text)}; it must be a whole number", param=name)
    return int(text)
