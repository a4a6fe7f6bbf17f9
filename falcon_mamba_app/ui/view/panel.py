"""The side panel's values: the memory, what an attention model would take, the figures of a reply.

Pure functions from figures to plain values; assets/memory.js draws them. An unknown figure is an en
dash, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from falcon_mamba_app.lab.attention import LLAMA_2_7B, LLAMA_3_1_8B, QWEN_2_5_7B
from falcon_mamba_app.protocol import ModelInfo, ServiceStats
from falcon_mamba_app.ui.conversation.reply import Reply
from falcon_mamba_app.ui.conversation.session import Session
from falcon_mamba_app.ui.conversation.tree import Facts

UNKNOWN = "–"

# What the panel compares with: each model's cache, in 16 bits.
OTHER_MODELS = tuple(
    (model.name, model.bytes_per_token) for model in (QWEN_2_5_7B, LLAMA_3_1_8B, LLAMA_2_7B)
)

WHY = {
    "Speed now": "Tokens written per second, over the last second",
    "First token": "From sending the message to the reply's first token",
    "Read this turn": "Tokens of the conversation that this reply had to read anew",
    "Remembered": "Tokens that were not read again: a saved state already holds them",
    "This reply": "Tokens per second, from the reply's first token to its last",
    "Replies running": "Of all visitors, and how many this server writes at the same time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the panel shows, taken from the service and from the reply being written."""

    stats: ServiceStats
    context_tokens: int | None = None
    prompt_tokens: int | None = None
    reused_tokens: int | None = None
    ttft_s: float | None = None
    tokens_per_s_now: float | None = None
    tokens_per_s: float | None = None
    strip: str | None = None  # the picture of the state; None leaves the one that is shown

    @classmethod
    def of(cls, stats: ServiceStats, reply: Reply) -> Figures:
        """The figures of a reply."""
        return cls(
            stats=stats,
            context_tokens=reply.context_tokens,
            prompt_tokens=reply.prompt_tokens,
            reused_tokens=reply.reused_tokens,
            ttft_s=reply.ttft_s,
            tokens_per_s_now=reply.tokens_per_s_now,
            tokens_per_s=reply.tokens_per_s,
            strip=reply.strip,
        )

    @classmethod
    def at_rest(cls, stats: ServiceStats, session: Session) -> Figures:
        """Of a conversation in which nothing is being written: what its last reply took."""
        head = session.tree.head
        facts = (head and head.facts) or Facts()
        return cls(
            stats=stats,
            context_tokens=facts.context_tokens,
            prompt_tokens=facts.prompt_tokens,
            reused_tokens=facts.reused_tokens,
            ttft_s=facts.ttft_s,
            tokens_per_s=facts.tokens_per_s,
            strip=facts.strip or "",
        )

    @property
    def read_tokens(self) -> int | None:
        if self.prompt_tokens is None or self.reused_tokens is None:
            return None
        return self.prompt_tokens - self.reused_tokens


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
    """For a count of parameters: "512", "4k", "7.27B"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def shown_panel(figures: Figures) -> dict[str, Any]:
    """Everything that the panel shows."""
    model = figures.stats.model
    shown: dict[str, Any] = {
        "stateBytes": None if model is None else model.state_bytes,
        "tokens": figures.context_tokens,
        "trained": None if model is None else model.trained_context_tokens,
        "rivals": _rivals(model),
        "tiles": _tiles(figures),
        "note": _note(figures),
        "facts": _facts(figures.stats),
        "memory": _memory(figures.stats),
    }
    if figures.strip is not None:
        shown["strip"] = figures.strip
    return shown


def _rivals(model: ModelInfo | None) -> list[list[Any]]:
    """Attention models to compare with, and the bytes that each keeps per token."""
    if model is None or model.state_bytes is None or not model.kv_bytes_per_token:
        return []  # not known, or a single layer, which is no transformer block to compare with
    own_size = ("attention of this size", model.kv_bytes_per_token)
    return [list(rival) for rival in (own_size, *OTHER_MODELS)]


def _tiles(figures: Figures) -> list[list[str]]:
    """Label, value, and what it means; in the order of their meaning."""
    stats = figures.stats
    running = count_text(stats.running)
    if stats.running is not None and stats.max_running is not None:
        running = f"{stats.running} of {stats.max_running}"
    values = {
        "Speed now": _with_unit(rate_text(figures.tokens_per_s_now), "tok/s"),
        "First token": seconds_text(figures.ttft_s),
        "Read this turn": _tokens(figures.read_tokens),
        "Remembered": _tokens(figures.reused_tokens),
        "This reply": _with_unit(rate_text(figures.tokens_per_s), "tok/s"),
        "Replies running": running,
    }
    return [[label, value, WHY[label]] for label, value in values.items()]


def _with_unit(value: str, unit: str) -> str:
    return value if value == UNKNOWN else f"{value} {unit}"


def _tokens(count: int | None) -> str:
    return _with_unit(count_text(count), "token" if count == 1 else "tokens")


def _memory(stats: ServiceStats) -> list[list[str]]:
    """What the server's memory holds, which all visitors share."""
    on_gpu = stats.gpu_memory_bytes is not None
    now = stats.gpu_memory_bytes if on_gpu else stats.process_memory_bytes
    peak = stats.peak_gpu_memory_bytes if on_gpu else stats.peak_process_memory_bytes
    if now is not None and peak is not None:
        peak = max(now, peak)  # read at different moments
    model = stats.model
    weights = model.weights_bytes if model else None
    state_bytes = model.state_bytes if model else None
    slots = None
    if state_bytes is not None and stats.max_running is not None:
        slots = state_bytes * (stats.max_running + 1)  # one more is scratch
    saved = 0 if on_gpu else stats.snapshot_bytes or 0  # on a GPU they are in the host's memory
    rest = None if now is None else max(0, now - (weights or 0) - (slots or 0) - saved)
    points = f"Restore points ({count_text(stats.snapshots)})"
    return [
        ["GPU memory" if on_gpu else "Process memory", bytes_text(now)],
        ["Weights", bytes_text(weights)],
        [f"States of {stats.max_running or UNKNOWN} replies", bytes_text(slots)],
        [points, _of_limit(stats)],
        ["Program and libraries", bytes_text(rest)],
        ["Peak", bytes_text(peak)],
    ]


def _of_limit(stats: ServiceStats) -> str:
    if stats.snapshot_bytes is None or stats.max_snapshot_bytes is None:
        return bytes_text(stats.snapshot_bytes)
    return f"{bytes_text(stats.snapshot_bytes)} of at most {bytes_text(stats.max_snapshot_bytes)}"


def _note(figures: Figures) -> dict[str, Any]:
    model = figures.stats.model
    trained = model.trained_context_tokens if model else None
    if trained is None:
        return {"text": "A fixed memory is not perfect recall: old details fade."}
    if figures.context_tokens is not None and figures.context_tokens > trained:
        text = (
            f"Beyond its training. The context now exceeds the {trained:,} tokens the model was "
            "trained on. Memory stays constant; recall fades."
        )
        return {"text": text, "isBeyond": True}
    text = (
        "A fixed memory is not perfect recall: old details fade. Trained on contexts of "
        f"{trained:,} tokens."
    )
    return {"text": text}


def _facts(stats: ServiceStats) -> list[list[str]]:
    model, drafted = stats.model, stats.draft_tokens_total
    if model is None:
        return []
    parameters = None if model.num_parameters is None else short_count(model.num_parameters)
    rows = {
        "Model": model.id,
        "Parameters": parameters,
        "Precision": ", ".join(filter(None, (model.dtype, model.quantization))),
        "Device": model.device,
        "Kernels": model.kernels,
    }
    if drafted:
        rows["Drafts accepted"] = f"{stats.accepted_tokens_total or 0:,} of {drafted:,} tokens"
    return [[name, value or UNKNOWN] for name, value in rows.items()]
