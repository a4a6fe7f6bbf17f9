"""The service's figures for Prometheus.

They are read from `service.stats()` at each scrape. Unknown figures are left out, because an absent
figure and a 0 mean different things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from falcon_mamba_app import __version__
from falcon_mamba_app.figures import Figures, Histogram
from falcon_mamba_app.protocol import GenerationService, ModelInfo, ServiceStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "falcon_mamba_"

# Field of ServiceStats → name and help. Prometheus appends _total to counters.
COUNTERS = {
    "requests_total": ("requests", "Requests accepted."),
    "prompt_tokens_total": ("prompt_tokens", "Prompt tokens of all requests, reused ones too."),
    "reused_tokens_total": ("reused_tokens", "Prompt tokens restored from a snapshot."),
    "completion_tokens_total": ("completion_tokens", "Tokens generated."),
    "draft_tokens_total": ("draft_tokens", "Tokens drafted by looking up what was said before."),
    "accepted_tokens_total": ("accepted_tokens", "Drafted tokens that were verified."),
}
GAUGES = {
    "running": ("sequences_running", "Sequences that hold a slot."),
    "waiting": ("sequences_waiting", "Requests in line for a slot."),
    "max_running": ("sequences_max_running", "Slots."),
    "snapshots": ("snapshots", "Saved states of idle sessions."),
    "snapshot_bytes": ("snapshot_bytes", "Memory held by snapshots."),
    "max_snapshot_bytes": ("snapshot_max_bytes", "Memory that snapshots may hold."),
    "decode_tokens_per_s": ("decode_tokens_per_second", "Generated over the last seconds."),
    "prefill_tokens_per_s": ("prefill_tokens_per_second", "Read over the last seconds."),
    "process_memory_bytes": ("process_memory_bytes", "Resident memory of the process."),
    "peak_process_memory_bytes": ("process_memory_peak_bytes", "The most it has been."),
    "gpu_memory_bytes": ("gpu_memory_bytes", "Device memory allocated by the process."),
    "peak_gpu_memory_bytes": ("gpu_memory_peak_bytes", "The most it has been."),
    "load_progress": ("load_progress_ratio", "0 to 1 while the model loads."),
}
MODEL_GAUGES = {
    "state_bytes": ("state_bytes", "State of one sequence, whatever its length."),
    "weights_bytes": ("weights_bytes", "Size of the weights."),
}
MODEL_LABELS = ("id", "family", "dtype", "device", "kernels", "quantization")


class StatsCollector(Collector):
    """Turns one snapshot of the service into metric families."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        stats = self._service.stats()
        yield GaugeMetricFamily(
            PREFIX + "ready", "1 when requests are served.", float(stats.status == "ready")
        )
        for field, (name, text) in COUNTERS.items():
            if (value := getattr(stats, field)) is not None:
                yield CounterMetricFamily(PREFIX + name, text, value)
        yield from _gauges(stats, GAUGES)
        if stats.model is not None:
            yield from _gauges(stats.model, MODEL_GAUGES)
            labels = {name: getattr(stats.model, name) for name in MODEL_LABELS}
            known = {name: value for name, value in labels.items() if value is not None}
            yield InfoMetricFamily(PREFIX + "model", "What is loaded.", known)
        yield InfoMetricFamily(PREFIX + "app", "What serves it.", {"version": __version__})


def _gauges(
    source: ServiceStats | ModelInfo, gauges: dict[str, tuple[str, str]]
) -> Iterator[Metric]:
    for field, (name, text) in gauges.items():
        if (value := getattr(source, field)) is not None:
            yield GaugeMetricFamily(PREFIX + name, text, value)


# Field of Figures → name and help.
HISTOGRAMS = {
    "ttft_s": ("time_to_first_token_seconds", "From the request to the first text of its reply."),
    "itl_s": ("time_between_tokens_seconds", "Between two pieces of a reply's text."),
    "queue_s": ("queue_seconds", "From the request to its slot."),
    "prompt_tokens": ("prompt_length_tokens", "Tokens of a finished reply's prompt."),
    "reply_tokens": ("reply_length_tokens", "Tokens of a finished reply."),
}


class FiguresCollector(Collector):
    """Turns the figures of all replies into metric families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for field, (name, text) in HISTOGRAMS.items():
            histogram: Histogram = getattr(self._figures, field)
            yield HistogramMetricFamily(
                PREFIX + name, text, histogram.cumulative(), histogram.total
            )
        yield CounterMetricFamily(
            PREFIX + "replies_reusing",
            "Replies that began from a state.",
            self._figures.num_reusing,
        )
        ended = "Replies by how they ended: a reason, cancelled, or an error's code."
        yield _counted(PREFIX + "replies_ended", ended, ["reason"], self._figures.ended)
        errors = "Answers of the API that were errors, by code."
        yield _counted(PREFIX + "api_errors", errors, ["code"], self._figures.api_errors)
        refused = "Requests answered with an error by any layer, limits and logins too."
        yield _counted(
            PREFIX + "refused_requests", refused, ["surface", "status"], self._figures.refused
        )
        used = "Tokens of each API key, by its place in --api-key."
        yield _counted(PREFIX + "key_tokens", used, ["key", "kind"], self._figures.key_tokens)


def _counted(
    name: str, text: str, labels: list[str], counts: Mapping[Any, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric([values] if isinstance(values, str) else list(values), count)
    return family


class MetricsPage:
    """The text of /metrics, from a registry of its own."""

    def __init__(self, service: GenerationService, figures: Figures) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(service))
        self._registry.register(FiguresCollector(figures))

    def text(self) -> bytes:
        return generate_latest(self._registry)
