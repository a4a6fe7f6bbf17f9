"""Transformers' `generation_config`, which `transformers chat` sends as a text of JSON."""

from __future__ import annotations

import json
from typing import Any

from falcon_mamba_app.api.fields import shown
from falcon_mamba_app.errors import InvalidRequest, NotSupported

FIELD = "generation_config"
MAX_CHARS = 20_000
# Its names for what this API has too, by this API's names.
NAMES = {
    "max_new_tokens": "max_tokens",
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")},
    "repetition_penalty": "repetition_penalty",
}
# What says nothing about a reply, or what the model's own tokens decide here.
WITHOUT_EFFECT = (
    *("transformers_version", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("use_cache", "return_dict_in_generate", "num_beams", "num_return_sequences"),
)


def with_generation_config(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the config's entries as fields; fields that were sent themselves count more.

    Raises InvalidRequest, and NotSupported for an entry that asks for something else.
    """
    if FIELD not in body:
        return body
    kept = {name: value for name, value in body.items() if name != FIELD}
    config = _parsed(body[FIELD])
    is_greedy = config.pop("do_sample", True) is False
    fields: dict[str, Any] = {"temperature": 0} if is_greedy else {}
    for name, value in config.items():
        if value is None or name in WITHOUT_EFFECT or name.startswith("_"):
            continue
        if name not in NAMES:
            raise NotSupported(
                f"{FIELD}.{name[:80]} is {shown(value)}, which this server does not support; leave"
                " it out",
                param=FIELD,
            )
        fields.setdefault(NAMES[name], value)
    return {**fields, **kept}


def _parsed(value: Any) -> dict[str, Any]:
    try:
        config = json.loads(value) if isinstance(value, str) and len(value) <= MAX_CHARS else value
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidRequest(
            f"{FIELD} is {shown(value)}; it must be an object, or its JSON in at most"
            f" {MAX_CHARS:,} characters",
            param=FIELD,
        )
    return dict(config)
