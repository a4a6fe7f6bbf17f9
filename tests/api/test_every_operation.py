"""schemathesis drives every operation of /v1/openapi.json: each answer is documented, none a 500.

The same requests in every run. What it cannot know from a schema (two fields that contradict each
other, a file that has to exist) may be refused, so it does not ask that whatever the schema allows
is accepted; that what it forbids is refused, it does.
"""

from __future__ import annotations

import asyncio

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import with_visitor
from tests.support.echo_service import EchoService

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
PATH = "/v1/openapi.json"


def operations():
    service = EchoService()
    asyncio.run(service.start())
    schema = schemathesis.openapi.from_asgi(PATH, with_visitor(create_api(service)))
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_every_answer_is_documented(operation):
    @hypothesis.given(operation.as_strategy())
    @hypothesis.settings(
        max_examples=6,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def drive(case):
        case.call_and_validate(checks=CHECKS)

    drive()
