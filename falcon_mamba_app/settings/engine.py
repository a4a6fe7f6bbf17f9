"""How much the engine takes on: as asked, and on a certain device."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any, Literal

from falcon_mamba_app.settings.options import AUTO, number_for_me, option
from falcon_mamba_app.settings.parsing import parse_bytes

IntOrAuto = int | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How much the engine takes on. Everything that could grow has a limit here."""

    max_running: IntOrAuto = number_for_me(
        "replies written at the same time, each with a state",
        on_gpu=32,
        on_cpu=8,
        means="32 on a GPU, else 8",
    )
    max_waiting: int = option(
        64, "requests that may wait in line; more are refused", is_local=True, at_least=0
    )
    max_prefill_tokens: IntOrAuto = number_for_me(
        "prompt tokens read at a time", on_gpu=2048, on_cpu=512, means="2048 on a GPU, else 512"
    )
    max_mixed_prefill_tokens: IntOrAuto = number_for_me(
        "the same while others are being answered, so that their replies go on",
        on_gpu=128,
        on_cpu=64,
        means="128 on a GPU, else 64",
    )
    max_prompt_tokens: int = option(131_072, "longest prompt accepted", is_local=True, at_least=1)
    max_new_tokens: int = option(4_096, "longest reply a request may ask for", at_least=1)
    snapshot_bytes: int = option(
        2 * 2**30,
        "host memory for the states of idle sessions",
        is_local=True,
        at_least=0,
        parse=parse_bytes,
    )
    session_snapshots: int = option(
        4,
        "states of one conversation in host memory: of the last turn, then forks, fewer with age",
        is_local=True,
        at_least=1,
        at_most=64,
    )
    speculation: str = option(
        AUTO,
        "draft what a reply repeats and verify it in one pass, never changing it; auto: on the CPU",
        is_local=True,
        choices=(AUTO, "off"),
        on_gpu="off",
        on_cpu=AUTO,
    )
    threads: IntOrAuto = number_for_me("CPU threads", on_gpu=None, on_cpu=None, means="all cores")

    def on(self, *, has_gpu: bool) -> EngineLimits:
        """These settings with what suits the device in place of every AUTO."""
        suits = "on_gpu" if has_gpu else "on_cpu"

        def value(option: Field[Any]) -> Any:
            given = getattr(self, option.name)
            return option.metadata[suits] if given == AUTO else given

        return EngineLimits(**{option.name: value(option) for option in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """EngineSettings on a certain device, all chosen; threads: None leaves them to torch."""

    max_running: int
    max_waiting: int
    max_prefill_tokens: int
    max_mixed_prefill_tokens: int
    max_prompt_tokens: int
    max_new_tokens: int
    snapshot_bytes: int
    session_snapshots: int
    speculation: str
    threads: int | None
