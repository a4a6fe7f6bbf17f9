"""What most tests of the API begin with; a file that needs another service makes its own."""

from __future__ import annotations

import pytest

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import in_process
from tests.support.echo_service import ready_echo


@pytest.fixture
async def service():
    """An EchoService that has started."""
    return await ready_echo()


@pytest.fixture
async def client(service):
    """An HTTP client of the API over `service`, in this process."""
    async with in_process(create_api(service)) as client:
        yield client
