"""The side panel: the tokens that the model has read, its speed, and its memory.

These are pure functions from figures to HTML and inline SVG. Colours come from the style sheet, so
both themes share one picture. An unknown figure is shown as an en dash, never as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from falcon_mamba_app.protocol import ModelInfo, ServiceStats
from falcon_mamba_app.ui.conversation.reply import Reply

UNKNOWN = "–"
CHART_WIDTH, CHART_HEIGHT = 320, 126
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 24  # margins for the axes' labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the panel shows, taken from the service and from the reply being written."""

    stats: ServiceStats
    context_tokens: int | None = None
    reused_tokens: int | None = None
    ttft_s: float | None = None
    tokens_per_s_now: float | None = None
    tokens_per_s: float | None = None

    @classmethod
    def of(cls, stats: ServiceStats, reply: Reply | None = None) -> Figures:
        """The figures now; without a reply, only the service's own."""
        if reply is None:
            return cls(stats=stats)
        return cls(
            stats=stats,
            context_tokens=reply.context_tokens,
            reused_tokens=reply.reused_tokens,
            ttft_s=reply.ttft_s,
            tokens_per_s_now=reply.tokens_per_s_now,
            tokens_per_s=reply.tokens_per_s,
        )


def bytes_text(num_bytes: float | None) -> str:
    """For people: "36.7 MB", in powers of 1000 as memory vendors and papers count."""
    if num_bytes is None:
        return UNKNOWN
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def count_text(count: int | None) -> str:
    """Whole, with thousands separated."""
    return UNKNOWN if count is None else f"{count:,}"


def rate_text(per_s: float | None) -> str:
    """Three digits are enough."""
    return UNKNOWN if per_s is None else f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.1f}"


def seconds_text(seconds: float | None) -> str:
    """Milliseconds below one second."""
    if seconds is None:
        return UNKNOWN
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def short_count(count: float) -> str:
    """For an axis or a count of parameters: "512", "4k", "7.27B"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def render_panel(figures: Figures) -> str:
    """The whole panel as HTML."""
    return (
        '<div class="panel">'
        + _render_tiles(figures)
        + render_chart(figures.stats.model, figures.context_tokens)
        + _render_note(figures)
        + _render_model(figures.stats)
        + "</div>"
    )


def _tile(label: str, value: str, *, unit: str = "", accent: bool = False) -> str:
    unit_html = f'<span class="unit">{unit}</span>' if unit and value != UNKNOWN else ""
    css = "tile accent" if accent else "tile"
    return f'<div class="{css}"><dt>{escape(label)}</dt><dd>{escape(value)} {unit_html}</dd></div>'


def _render_tiles(figures: Figures) -> str:
    stats = figures.stats
    on_gpu = stats.gpu_memory_bytes is not None
    now = stats.gpu_memory_bytes if on_gpu else stats.process_memory_bytes
    peak = stats.peak_gpu_memory_bytes if on_gpu else stats.peak_process_memory_bytes
    if now is not None and peak is not None:
        peak = max(now, peak)  # read at different moments
    state_bytes = stats.model.state_bytes if stats.model else None
    running = count_text(stats.running)
    if stats.running is not None and stats.max_running is not None:
        running = f"{stats.running} of {stats.max_running}"
    return (
        '<dl class="tiles">'
        + _tile("Speed now", rate_text(figures.tokens_per_s_now), unit="tok/s", accent=True)
        + _tile("This reply", rate_text(figures.tokens_per_s), unit="tok/s")
        + _tile("First token", seconds_text(figures.ttft_s))
        + _tile("Context", count_text(figures.context_tokens), unit="tok")
        + _tile("Reused", count_text(figures.reused_tokens), unit="tok")
        + _tile("Replies running", running)
        + _tile("State, constant", bytes_text(state_bytes), accent=True)
        + _tile("GPU memory" if on_gpu else "Process memory", bytes_text(now))
        + _tile("Peak memory", bytes_text(peak))
        + "</dl>"
    )


def render_chart(model: ModelInfo | None, context_tokens: int | None) -> str:
    """Memory over context length: our state, and computed, an attention model's KV cache."""
    if model is None or model.state_bytes is None or not model.kv_bytes_per_token:
        return ""  # not known, or a single layer, which is no transformer block to compare with
    tokens = context_tokens or 0
    crossing = model.state_bytes / model.kv_bytes_per_token
    max_tokens = nice_ceiling(max(1.25 * tokens, 2 * crossing, 256))
    max_bytes = nice_ceiling(max(model.kv_bytes_per_token * max_tokens, model.state_bytes))
    chart = _Chart(max_tokens=max_tokens, max_bytes=max_bytes)
    return (
        f'<figure class="chart">{chart.draw(model, tokens)}'
        f"<figcaption>{_legend(model, tokens)}</figcaption></figure>"
    )


def nice_ceiling(value: float) -> int:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 × 10ⁿ: an axis that does not move with each token."""
    power = 10 ** math.floor(math.log10(value))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return int(next(step * power for step in steps if step * power >= value))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """The plane of the drawing: tokens to the right, bytes upwards."""

    max_tokens: int
    max_bytes: int

    def x(self, tokens: float) -> float:
        return round(LEFT + (CHART_WIDTH - LEFT - RIGHT) * tokens / self.max_tokens, 1)

    def y(self, num_bytes: float) -> float:
        height = CHART_HEIGHT - TOP - BOTTOM
        return round(TOP + height * (1 - num_bytes / self.max_bytes), 1)

    def draw(self, model: ModelInfo, tokens: int) -> str:
        """The SVG. Its title carries the same figures for those who do not see it."""
        assert model.state_bytes is not None and model.kv_bytes_per_token is not None
        kv_now, kv_end = (
            model.kv_bytes_per_token * tokens,
            model.kv_bytes_per_token * self.max_tokens,
        )
        title = (
            f"Memory over context length, now {tokens:,} tokens: this model's state "
            f"{bytes_text(model.state_bytes)}, constant; computed KV cache of an attention model "
            f"of the same size {bytes_text(kv_now)}."
        )
        return (
            f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" '
            f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
            + self._axes()
            + self._trained_mark(model.trained_context_tokens)
            + self._line("kv ahead", tokens, kv_now, self.max_tokens, kv_end)
            + self._line("kv", 0, 0, tokens, kv_now)
            + self._line("state", 0, model.state_bytes, self.max_tokens, model.state_bytes)
            + f'<line class="now" x1="{self.x(tokens)}" x2="{self.x(tokens)}" '
            f'y1="{TOP}" y2="{CHART_HEIGHT - BOTTOM}"/>'
            + f'<circle class="kv" cx="{self.x(tokens)}" cy="{self.y(kv_now)}" r="3.5"/>'
            + f'<circle class="state" cx="{self.x(tokens)}" '
            f'cy="{self.y(model.state_bytes)}" r="3.5"/></svg>'
        )

    def _line(self, css: str, x1: float, y1: float, x2: float, y2: float) -> str:
        return (
            f'<line class="{css}" x1="{self.x(x1)}" y1="{self.y(y1)}" '
            f'x2="{self.x(x2)}" y2="{self.y(y2)}"/>'
        )

    def _axes(self) -> str:
        base = CHART_HEIGHT - BOTTOM
        grid = "".join(
            f'<line class="grid" x1="{LEFT}" x2="{CHART_WIDTH - RIGHT}" '
            f'y1="{self.y(level)}" y2="{self.y(level)}"/>'
            f'<text x="{LEFT - 6}" y="{self.y(level) + 3.5}" text-anchor="end">'
            f"{bytes_text(level) if level else '0'}</text>"
            for level in (0, self.max_bytes / 2, self.max_bytes)
        )
        marks = "".join(
            f'<text x="{self.x(tokens)}" y="{base + 15}" text-anchor="{anchor}">{text}</text>'
            for tokens, anchor, text in (
                (0, "start", "0"),
                (self.max_tokens / 2, "middle", short_count(self.max_tokens / 2)),
                (self.max_tokens, "end", f"{short_count(self.max_tokens)} tokens"),
            )
        )
        return grid + marks

    def _trained_mark(self, trained_tokens: int | None) -> str:
        if trained_tokens is None or trained_tokens >= self.max_tokens:
            return ""
        x = self.x(trained_tokens)
        is_near_edge = trained_tokens > 0.8 * self.max_tokens
        label_x, anchor = (x - 3, "end") if is_near_edge else (x + 3, "start")
        return (
            f'<line class="trained" x1="{x}" x2="{x}" y1="{TOP}" y2="{CHART_HEIGHT - BOTTOM}"/>'
            f'<text x="{label_x:.1f}" y="{TOP + 8}" text-anchor="{anchor}">trained</text>'
        )


def _legend(model: ModelInfo, tokens: int) -> str:
    assert model.state_bytes is not None and model.kv_bytes_per_token is not None
    kv_now = bytes_text(model.kv_bytes_per_token * tokens) if tokens else UNKNOWN
    return (
        f'<span class="key state">This model: <b>{bytes_text(model.state_bytes)}</b></span>'
        f'<span class="key kv">Attention model’s KV cache, computed: <b>{kv_now}</b></span>'
    )


def _render_note(figures: Figures) -> str:
    model = figures.stats.model
    trained = model.trained_context_tokens if model else None
    if trained is None:
        return '<p class="note">Constant memory is not perfect recall: old details fade.</p>'
    if figures.context_tokens is not None and figures.context_tokens > trained:
        return (
            f'<p class="note beyond"><b>Beyond its training.</b> The context now exceeds the '
            f"{trained:,} tokens the model was trained on. Memory stays constant; recall fades.</p>"
        )
    return (
        '<p class="note">Constant memory is not perfect recall: old details fade. Trained on '
        f"contexts of {trained:,} tokens.</p>"
    )


def _render_model(stats: ServiceStats) -> str:
    model = stats.model
    if model is None:
        return ""
    parameters = None if model.num_parameters is None else short_count(model.num_parameters)
    precision = ", ".join(filter(None, (model.dtype, model.quantization)))
    rows = {
        "Model": model.id,
        "Parameters": parameters,
        "Weights": bytes_text(model.weights_bytes),
        "Precision": precision,
        "Device": model.device,
        "Kernels": model.kernels,
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value or UNKNOWN)}</dd></div>"
        for name, value in rows.items()
    )
    return f'<dl class="facts">{items}</dl>'
