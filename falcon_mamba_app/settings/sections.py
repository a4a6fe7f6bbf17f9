"""Every setting, its default and its limits.

Each field of a section is one option: `max_running` is `--max-running` and
`FALCON_MAMBA_MAX_RUNNING`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from falcon_mamba_app.settings.parsing import (
    parse_bytes,
    parse_int,
    parse_key,
    parse_key_weights,
    parse_keys,
    parse_login,
    parse_names,
    parse_networks,
    parse_origin_patterns,
    parse_origins,
    parse_secret,
)


def option(default: Any, help_text: str, *, is_secret: bool = False, **metadata: Any) -> Any:
    """One setting. A secret one is in no representation of its section."""
    metadata = {"help": help_text, "is_secret": is_secret, **metadata}
    return field(default=default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model runs, and where."""

    model: str = option(
        "auto",
        'a known name, a hub id or a folder; "nano" is bundled, "auto" suits the machine',
    )
    revision: str | None = option(None, "branch, tag or commit of a hub model")
    device: str = option("auto", "where it runs", choices=("auto", "cpu", "cuda"))
    dtype: str = option(
        "auto",
        "precision of weights and activations",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    quantization: str = option(
        "auto",
        "4-bit matrices through bitsandbytes; auto: as stored, else none where it fits, else nf4",
        choices=("auto", "none", "nf4", "fp4"),
    )
    double_quantization: str = option(
        "auto",
        "also quantise the 4-bit blocks' scales; auto: as stored, else off",
        choices=("auto", "on", "off"),
    )
    kernels: str = option(
        "auto",
        "implementation of the recurrence: numba on the CPU; triton or library (mamba-ssm and"
        " causal-conv1d) on a GPU; reference on both",
        choices=("auto", "reference", "numba", "triton", "library"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How much the engine takes on. Everything that could grow has a limit here."""

    max_running: int = option(
        0,
        "replies written at the same time, each with a state; 0 is 32 on a GPU, else 8",
        at_least=0,
    )
    max_waiting: int = option(64, "requests that may wait in line; more are refused", at_least=0)
    max_prefill_tokens: int = option(
        0, "prompt tokens read at a time; 0 is 2048 on a GPU, else 512", at_least=0
    )
    max_mixed_prefill_tokens: int = option(
        0,
        "the same while others are being answered, so that their replies go on; 0 is 128 on a GPU,"
        " else 64",
        at_least=0,
    )
    max_prompt_tokens: int = option(131_072, "longest prompt accepted", at_least=1)
    max_new_tokens: int = option(4_096, "longest reply a request may ask for", at_least=1)
    snapshot_bytes: int = option(
        2 * 2**30, "host memory for the states of idle sessions", at_least=0, parse=parse_bytes
    )
    threads: int | None = option(
        None, "CPU threads; default: all cores", at_least=1, parse=parse_int
    )

    def on(self, *, has_gpu: bool) -> EngineSettings:
        """These settings with what suits the device in place of the zeros."""
        return replace(
            self,
            max_running=self.max_running or (32 if has_gpu else 8),
            max_prefill_tokens=self.max_prefill_tokens or (2048 if has_gpu else 512),
            max_mixed_prefill_tokens=self.max_mixed_prefill_tokens or (128 if has_gpu else 64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may reach the service, and what stands behind it."""

    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(7860, "port to listen on", at_least=0, at_most=65_535)
    share: bool = option(False, "also open a public link through Gradio's relay")
    keep_session_s: int = option(
        600,
        "seconds to keep the conversation of a page that was closed, or that lost its connection",
        at_least=0,
    )
    auth: str | None = option(
        None,
        "USER:PASSWORD that the page asks for; without --api-key also the API's only key",
        parse=parse_login,
        is_secret=True,
    )
    api_key: tuple[str, ...] = option(
        (),
        "key, or keys with commas, that /v1 asks for; without --auth also the page's password",
        parse=parse_keys,
        is_secret=True,
    )
    key_weights: tuple[tuple[str, float], ...] = option(
        (),
        "KEY=NUMBER, with commas: API keys with another share of the server than 1",
        parse=parse_key_weights,
        is_secret=True,
    )
    session_secret: str | None = option(
        None,
        "names API sessions and signs logins; with one of your own, both outlive a restart",
        parse=parse_secret,
        is_secret=True,
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "addresses or networks, with commas, whose X-Forwarded-For is believed",
        parse=parse_networks,
    )
    cors_origins: tuple[str, ...] = option(
        (), "web pages elsewhere, as https://host with commas, that may call", parse=parse_origins
    )
    allowed_hosts: tuple[str, ...] = option(
        (), "names, with commas, under which the server answers; none: any", parse=parse_names
    )
    frame_ancestors: tuple[str, ...] = option(
        (),
        "web pages elsewhere, as https://host with commas, that may show this one in a frame",
        parse=parse_origin_patterns,
    )
    backend_url: str | None = option(
        None, "serve the model of another OpenAI-compatible server, such as http://host:8000/v1"
    )
    backend_api_key: str | None = option(
        None, "key for --backend-url", parse=parse_key, is_secret=True
    )
    log_level: str = option(
        "info", "how much the terminal tells", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What all callers together, and each visitor, may take. A visitor is an API key, or an
    address; this machine's own is not limited, unless the server is shared. 0 is no limit.
    """

    max_body_bytes: int = option(
        16 * 2**20, "longest body of a request", at_least=1_024, parse=parse_bytes
    )
    max_state_bytes: int = option(
        64 * 2**20, "longest body that brings a session's state", at_least=0, parse=parse_bytes
    )
    # About as many tokens as a prompt may have by default.
    max_message_chars: int = option(500_000, "longest message on the page", at_least=1)
    max_page_events: int = option(1_000, "events of all pages that may wait", at_least=1)
    max_connections: int = option(2_000, "connections open at the same time", at_least=0)
    header_timeout_s: int = option(20, "seconds for the head of a request to arrive", at_least=1)
    reader_timeout_s: int = option(
        60, "seconds for a reader to take more of an answer that waits for it", at_least=1
    )
    body_timeout_s: int = option(120, "seconds for the body of a request to arrive", at_least=1)
    visitor_max_connections: int = option(
        200, "requests that a visitor may have open at the same time", at_least=0
    )
    visitor_requests_per_minute: int = option(
        1_200, "requests of any kind; as many at once", at_least=0
    )
    visitor_max_replies: int = option(
        8, "replies that a visitor may be waiting for at the same time", at_least=0
    )
    visitor_replies_per_minute: int = option(
        120, "replies that a visitor may ask for; as many at once", at_least=0
    )
    visitor_tokens_per_minute: int = option(
        600_000,
        "tokens that are read and written for a visitor; what a saved state spares is not counted",
        at_least=0,
    )
    visitor_max_sessions: int = option(
        100, "conversations that a visitor may have used within the last hour", at_least=0
    )
    wrong_keys_per_minute: int = option(
        10, "wrong passwords or API keys from one address, this machine's included", at_least=1
    )


DEFAULT_LIMITS = LimitSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "engine": EngineSettings,
    "server": ServerSettings,
    "limits": LimitSettings,
}
