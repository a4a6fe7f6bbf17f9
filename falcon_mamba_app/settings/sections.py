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
    parse_keys,
    parse_login,
)


def option(default: Any, help_text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **metadata})


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
    kernels: str = option(
        "auto",
        "implementation of the recurrence: numba on the CPU, triton on a GPU, reference on both",
        choices=("auto", "reference", "numba", "triton"),
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
        "the same while others are being answered, so that their replies go on; 0 is 256 on a GPU,"
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
            max_mixed_prefill_tokens=self.max_mixed_prefill_tokens or (256 if has_gpu else 64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may reach the service, and what stands behind it."""

    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(7860, "port to listen on", at_least=0, at_most=65_535)
    share: bool = option(False, "also open a public link through Gradio's relay")
    auth: str | None = option(None, "USER:PASSWORD that the page asks for", parse=parse_login)
    api_key: tuple[str, ...] = option(
        (), "key, or keys with commas, that /v1 asks for", parse=parse_keys
    )
    backend_url: str | None = option(
        None, "serve the model of another OpenAI-compatible server, such as http://host:8000/v1"
    )
    backend_api_key: str | None = option(None, "key for --backend-url", parse=parse_key)
    log_level: str = option(
        "info", "how much the terminal tells", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "engine": EngineSettings,
    "server": ServerSettings,
}
