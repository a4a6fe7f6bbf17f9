"""All that the server has of one caller, wherever it lies: each room says how its part is deleted.

It knows no room. A request names the caller, and every room finds its own name for them in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from falcon_mamba_app.errors import FalconMambaError
from falcon_mamba_app.owners import Asking

# Delete what is there of whoever asks; how much that was. It touches nothing of anybody else.
Removal = Callable[[Asking], Awaitable[int]]


class Belongings:
    """The rooms in the order in which they are emptied: whatever still writes ends first."""

    def __init__(self) -> None:
        self._rooms: list[tuple[str, Removal]] = []

    def add(self, kind: str, remove: Removal, *, is_first: bool = False) -> None:
        self._rooms.insert(0 if is_first else len(self._rooms), (kind, remove))

    async def delete(self, request: Asking) -> dict[str, int]:
        """How much went of each kind. A room in trouble hinders no other; its error comes after."""
        gone, trouble = {}, None
        for kind, remove in self._rooms:
            try:
                gone[kind] = await remove(request)
            except FalconMambaError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return gone
