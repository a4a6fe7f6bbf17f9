"""How one option is declared: its default, its sentence, its limits."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from falcon_mamba_app.settings.parsing import parse_int_or_auto

AUTO = "auto"  # choose for me: the one word for it


def option(
    default: Any,
    help_text: str,
    *,
    is_secret: bool = False,
    is_local: bool = False,
    **metadata: Any,
) -> Any:
    """One setting. A secret one is in no representation of its section; a local one is about a
    model that runs here, and refused beside --backend-url.
    """
    metadata = {"help": help_text, "is_secret": is_secret, "is_local": is_local, **metadata}
    return field(default=default, repr=not is_secret, metadata=metadata)


def number_for_me(help_text: str, *, on_gpu: int | None, on_cpu: int | None, means: str) -> Any:
    """A number of a local model that is AUTO unless given; `means` is that in words."""
    return option(
        AUTO,
        f"{help_text}; auto: {means}",
        is_local=True,
        at_least=1,
        parse=parse_int_or_auto,
        on_gpu=on_gpu,
        on_cpu=on_cpu,
    )
