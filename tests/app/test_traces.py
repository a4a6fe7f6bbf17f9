"""Traces of replies: spans of the parts one after the other, counts, and no word of anybody's."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.figures import FiguredService, Figures
from falcon_mamba_app.middleware.arrival import RequestIds
from falcon_mamba_app.traces import Traces
from tests.support.api_fixtures import in_process, with_visitor
from tests.support.echo_service import EchoService

CHAT = "/v1/chat/completions"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
async def http(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    service = FiguredService(EchoService(), Figures(), Traces(provider.get_tracer("test")))
    await service.start()
    async with in_process(RequestIds(with_visitor(create_api(service)))) as http:
        yield http


def asked(content, **fields):
    return {"messages": [{"role": "user", "content": content}], **fields}


async def test_a_reply_is_a_request_of_three_parts_that_follow_each_other(http, exporter):
    answer = await http.post(CHAT, json=asked("secret words"), headers={"x-request-id": "mine"})
    queue, prefill, decode, whole = exporter.get_finished_spans()
    assert [s.name for s in (queue, prefill, decode, whole)] == [
        *("queue", "prefill", "decode", "request")
    ]
    assert all(part.parent.span_id == whole.context.span_id for part in (queue, prefill, decode))
    assert whole.start_time <= queue.start_time and decode.end_time == whole.end_time
    assert queue.end_time <= prefill.start_time <= prefill.end_time <= decode.start_time
    usage = answer.json()["usage"]
    assert dict(whole.attributes) == {
        "gen_ai.operation.name": "generate",
        "falcon_mamba.request_id": "mine",
        "falcon_mamba.reused_tokens": 0,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.response.finish_reasons": ("stop",),
    }
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_a_callers_own_span_is_the_parent(http, exporter):
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    await http.post(CHAT, json=asked("hello"), headers=headers)
    await http.post(CHAT, json=asked("hello"), headers={"traceparent": "nonsense"})
    first, second = [s for s in exporter.get_finished_spans() if s.name == "request"]
    assert f"{first.context.trace_id:032x}" == TRACE_ID
    assert f"{first.parent.span_id:016x}" == SPAN_ID
    assert second.parent is None


@pytest.mark.parametrize(
    ("content", "reason", "parts"),
    [
        ("BREAK one two three", "engine_failure", ["queue", "prefill", "decode"]),
        ("SILENT", "stop", ["queue", "prefill"]),
        ("word " * 20_001, "context_length_exceeded", ["queue"]),
    ],
)
async def test_every_end_closes_the_spans_that_are_open(http, exporter, content, reason, parts):
    await http.post(CHAT, json=asked(content))
    *finished, whole = exporter.get_finished_spans()
    assert [span.name for span in finished] == parts
    assert whole.attributes["gen_ai.response.finish_reasons"] == (reason,)


def test_without_the_packages_the_setting_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"falcon-mamba-app\[otel\]"):
        Traces.sent_to("http://127.0.0.1:4318/v1/traces")
