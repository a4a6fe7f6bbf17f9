"""How large a form may be. What a grammar costs later is bounded where it is compiled."""

from __future__ import annotations

import json
from typing import Any

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, Form, GrammarForm, JsonForm, RegexForm

MAX_CHARACTERS = 100_000  # of a schema, a grammar, or all choices
MAX_PATTERN_CHARACTERS = 10_000
MAX_CHOICES = 1_000
MAX_DEPTH = 64  # of a schema: lists and objects within each other


def refuse_too_large(form: Form) -> None:
    """Raises InvalidRequest with the number that is too large, and with the limit."""
    match form:
        case JsonForm(schema=schema):
            _check_length(schema, MAX_CHARACTERS, "schema")
            _check_depth(schema)
        case RegexForm(pattern=pattern):
            _check_length(pattern, MAX_PATTERN_CHARACTERS, "pattern")
        case GrammarForm(grammar=grammar):
            _check_length(grammar, MAX_CHARACTERS, "grammar")
        case ChoiceForm(choices=choices):
            if not 0 < len(choices) <= MAX_CHOICES or not all(choices):
                raise InvalidRequest(
                    f"there are {len(choices)} choices; allowed are 1 to {MAX_CHOICES}, none of"
                    " them empty",
                    param="structured_outputs",
                )
            _check_length("".join(choices), MAX_CHARACTERS, "list of choices")


def _check_length(text: str, limit: int, what: str) -> None:
    if len(text) > limit:
        raise InvalidRequest(
            f"the {what} has {len(text)} characters; this server reads at most {limit}",
            param="response_format" if what == "schema" else "structured_outputs",
        )


def _check_depth(schema: str) -> None:
    level: list[Any] = [json.loads(schema)]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise InvalidRequest(
        f"the schema's lists and objects lie more than {MAX_DEPTH} deep within each other; this"
        f" server reads {MAX_DEPTH}",
        param="response_format",
    )


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
