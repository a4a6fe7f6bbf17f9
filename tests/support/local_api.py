"""The API of the bundled model through a real server on the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import bounded, on_loopback
from tests.support.services import make_local_service


@asynccontextmanager
async def local_url(**limits: Any) -> AsyncIterator[str]:
    """The address of /v1; the service is closed afterwards."""
    service = make_local_service(**limits)
    await service.start()
    async with on_loopback(bounded(create_api(service))) as url:
        yield f"{url}/v1"
    await service.close()
