"""What large bodies took goes back to the system, once for all that came together."""

from __future__ import annotations

import asyncio

import pytest

from falcon_mamba_app.middleware import memory_return
from falcon_mamba_app.middleware.memory_return import LARGE_BYTES, MemoryReturn


async def reading_all(scope, receive, send) -> None:
    while (await receive()).get("more_body"):
        pass


@pytest.mark.parametrize(
    ("sizes", "num_returns"), [([100], 0), ([LARGE_BYTES], 1), ([2 * LARGE_BYTES] * 8, 1)]
)
async def test_memory_goes_back_after_large_bodies_alone(sizes, num_returns, monkeypatch):
    monkeypatch.setattr(memory_return, "DELAY_S", 0)
    returns, given_back = [], asyncio.Event()

    def give_back() -> None:
        returns.append(1)
        loop.call_soon_threadsafe(given_back.set)

    loop = asyncio.get_running_loop()
    app = MemoryReturn(reading_all, give_back=give_back)

    async def request(size: int) -> None:
        parts = [b"x" * (size // 2)] * 2

        async def receive():
            return {"body": parts.pop(), "more_body": bool(parts)}

        await app({"type": "http"}, receive, None)

    await asyncio.gather(*map(request, sizes))
    if num_returns:
        await asyncio.wait_for(given_back.wait(), 60)
    assert len(returns) == num_returns


def test_this_system_can_be_told_to_take_memory_back():
    give_back = memory_return._trim_of_this_system()
    assert give_back is None or give_back() is None
