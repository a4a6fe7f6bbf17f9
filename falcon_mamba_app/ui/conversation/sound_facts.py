"""The figures of a reply as a file tells them: of each only what is sound.

They are shown and decide nothing, so a wrong one is left out, and the conversation is opened.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from falcon_mamba_app.ui.conversation.tree import Facts

MAX_CHARS = 500
MAX_NUMBER = 1e15
STRIP = re.compile(r"\d{1,3}x\d{1,3}:[A-Za-z0-9+/=]{1,8000}")
KINDS: dict[str, tuple[type, ...]] = {
    "context_tokens": (int,),
    "completion_tokens": (int,),
    "prompt_tokens": (int,),
    "reused_tokens": (int,),
    "tokens_per_s": (int, float),
    "ttft_s": (int, float),
    "prefill_s": (int, float),
    "is_cut_short": (bool,),
    "settings": (str,),
    "model": (str,),
    "ended_s": (int, float),
    "strip": (str,),
}


def facts_in(told: Any) -> Facts | None:
    """The facts in an object of JSON; None where it is no object."""
    return Facts(**sound(told)) if isinstance(told, dict) else None


def sound(told: dict[str, Any], names: Collection[str] = KINDS.keys()) -> dict[str, Any]:
    """Of the facts with these names those that are sound."""
    found = {name: _sound(name, told[name]) for name in names if name in KINDS and name in told}
    return {name: value for name, value in found.items() if value is not None}


def _sound(name: str, value: Any) -> Any:
    """The value of a fact, or None."""
    kinds = KINDS[name]
    is_of_kind = isinstance(value, kinds) and isinstance(value, bool) is (kinds == (bool,))
    if not is_of_kind:
        return None
    if name == "strip":
        return value if STRIP.fullmatch(value) else None
    if isinstance(value, str):
        return value[:MAX_CHARS]
    return value if 0 <= value < MAX_NUMBER else None
