"""The forms that a reply can be held to: JSON, a pattern, one of several choices, or a grammar.

All other modules import them from `protocol`, whose requests hold them. A form binds the reply
alone, not the beginning of it that a prompt may hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JsonForm:
    """JSON on one line that is valid by the JSON Schema.

    A keyword of the schema that cannot be held to is refused, unless `is_lenient`: then it has no
    effect.
    """

    schema: str  # as JSON
    is_lenient: bool = False


@dataclass(frozen=True, slots=True)
class RegexForm:
    """A text that the whole pattern matches; no look-around and no references back."""

    pattern: str


@dataclass(frozen=True, slots=True)
class ChoiceForm:
    """One of these texts."""

    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GrammarForm:
    """A text of this grammar: in Lark's notation, whose first rule is `start`, or in GBNF, whose
    first rule is `root`. `param` is the field of a request that a refusal names.
    """

    grammar: str
    param: str = "structured_outputs"


Form = JsonForm | RegexForm | ChoiceForm | GrammarForm
