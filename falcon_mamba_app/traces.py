"""Traces of replies for OpenTelemetry: request, queue, prefill and decode as spans.

Names of attributes are those of OpenTelemetry's conventions for generative models where it has one.
A span holds counts and times, never a word of a prompt or a reply. Only this module knows the
package, which is optional.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.events import Accepted, Finished, GenerationEvent, TextDelta
from falcon_mamba_app.logs import request_id

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

SERVICE = "falcon-mamba-app"
# The caller's header: the span of whoever has sent the request.
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Traces:
    """Begins the trace of each reply."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def sent_to(cls, endpoint: str) -> Traces:
        """Traces that a collector at this address gets (OTLP over HTTP). Raises SettingsError
        without the packages of the extra `otel`.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SettingsError(
                f"--trace-endpoint needs packages that are not installed ({error.name}):"
                ' pip install "falcon-mamba-app[otel]"'
            ) from error
        provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider.get_tracer(SERVICE))

    def begin(self) -> ReplyTrace:
        """The trace of a reply that has been asked for now."""
        return ReplyTrace(self._tracer)


class ReplyTrace:
    """One reply: a span for all of it, and one for each of its parts, one after the other."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        attributes: dict[str, Any] = {"gen_ai.operation.name": "generate"}
        if (own := request_id.get()) is not None:
            attributes["falcon_mamba.request_id"] = own
        self._whole = tracer.start_span(
            "request", context=_callers_context(), attributes=attributes, start_time=_now_ns()
        )
        self._part = self._begun("queue")

    def note(self, event: GenerationEvent) -> None:
        """An event of the reply: it may begin the next part."""
        match event:
            case Accepted():
                self._go_on("prefill")
                _set(self._whole, "gen_ai.usage.input_tokens", event.prompt_tokens)
                _set(self._whole, "falcon_mamba.reused_tokens", event.reused_tokens)
            case TextDelta() if not self._is_decoding:
                self._go_on("decode")
            case Finished():
                _set(self._whole, "gen_ai.usage.input_tokens", event.prompt_tokens)
                _set(self._whole, "gen_ai.usage.output_tokens", event.completion_tokens)

    def end(self, reason: str) -> None:
        """The reply is over: its finish reason, "cancelled", or an error's code."""
        now_ns = _now_ns()
        self._part.end(now_ns)
        self._whole.set_attribute("gen_ai.response.finish_reasons", [reason])
        self._whole.end(now_ns)

    @property
    def _is_decoding(self) -> bool:
        return self._name == "decode"

    def _go_on(self, name: str) -> None:
        self._part.end(_now_ns())
        self._part = self._begun(name)

    def _begun(self, name: str) -> Span:
        from opentelemetry.trace import set_span_in_context

        self._name = name
        context = set_span_in_context(self._whole)
        return self._tracer.start_span(name, context=context, start_time=_now_ns())


def _callers_context() -> Any:
    """The span that the caller has named, as OpenTelemetry's context; None without one."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = traceparent.get()
    if given is None:
        return None
    return TraceContextTextMapPropagator().extract({"traceparent": given})


def _set(span: Span, name: str, value: int | None) -> None:
    if value is not None:
        span.set_attribute(name, value)


def _now_ns() -> int:
    return time.time_ns()
