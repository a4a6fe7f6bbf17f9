"""The figures of the app's /metrics, as numbers by name."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "falcon_mamba_"


def gauges(text: str) -> dict[str, float]:
    """The samples of Prometheus' text, each by its name without the app's prefix."""
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return {sample.name.removeprefix(PREFIX): sample.value for sample in samples}
