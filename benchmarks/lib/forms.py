"""Random forms of replies with bounded texts, and the check of a text by other programs' rules.

The checks are jsonschema's and Python's own, so that a fault of the grammars is not repeated here.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator

from falcon_mamba_app.protocol import ChoiceForm, Form, JsonForm, RegexForm

Schema = dict[str, Any]

MAX_DEPTH = 3
WORDS = ("red", "blue", "näve", 'a "quote"', "back\\slash", "日本", "", "two words", "-1", "null")
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")


def random_form(rng: random.Random) -> Form:
    """A JSON Schema three times out of four, a pattern or choices otherwise."""
    draw = rng.random()
    if draw < 0.75:
        return JsonForm(json.dumps(random_schema(rng)))
    if draw < 0.95:
        return RegexForm(random_pattern(rng))
    return ChoiceForm(tuple(rng.sample([word for word in WORDS if word], rng.randint(1, 5))))


def is_held(form: Form, text: str) -> bool:
    """Whether the text has the form."""
    match form:
        case JsonForm(schema=schema):
            return bool(Draft202012Validator(json.loads(schema)).is_valid(json.loads(text)))
        case RegexForm(pattern=pattern):
            return re.fullmatch(pattern, text) is not None
        case ChoiceForm(choices=choices):
            return text in choices
    raise AssertionError(f"no check for {form}")


def random_schema(rng: random.Random) -> Schema:
    """A schema with objects, lists, texts, numbers, choices and references."""
    schema = _any(rng, MAX_DEPTH)
    if rng.random() < 0.2:
        item: Schema = {"type": "object", "properties": {"v": _any(rng, 1)}, "required": ["v"]}
        item["additionalProperties"] = False
        properties = {"whole": schema, "part": {"$ref": "#/$defs/item"}}
        schema = {**_closed(properties, ["whole", "part"]), "$defs": {"item": item}}
    return schema


def _any(rng: random.Random, depth: int) -> Schema:
    simple: list[Callable[[random.Random], Schema]] = [_text, _whole, _number, _plain, _choice]
    if depth == 0 or rng.random() < 0.35:
        return rng.choice(simple)(rng)
    nested = rng.choice((_object, _object, _list, _either))
    return nested(rng, depth - 1)


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(("id", "name", "größe", "a b", "list", "x", "y"), rng.randint(0, 4))
    properties = {name: _any(rng, depth) for name in names}
    return _closed(properties, [name for name in names if rng.random() < 0.7])


def _closed(properties: Schema, required: list[str]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _list(rng: random.Random, depth: int) -> Schema:
    least = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }


def _either(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(rng, depth) for _ in range(rng.randint(2, 3))]}


def _text(rng: random.Random) -> Schema:
    draw = rng.random()
    if draw < 0.2:
        return {"type": "string", "format": rng.choice(FORMATS)}
    if draw < 0.4:
        return {"type": "string", "pattern": f"^{random_pattern(rng)}$"}
    least = rng.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)}


def _whole(rng: random.Random) -> Schema:
    low = rng.randint(-1000, 1000)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5_000)}


def _number(rng: random.Random) -> Schema:
    low = rng.randint(-100, 100)
    return {"type": "number", "minimum": low, "exclusiveMaximum": low + rng.randint(1, 50)}


def _plain(rng: random.Random) -> Schema:
    return {"type": rng.choice(("boolean", "null", ["boolean", "null"]))}


def _choice(rng: random.Random) -> Schema:
    values: list[Any] = [*WORDS, 1, -2.5, True, None, [1], {"a": 1}]
    if rng.random() < 0.3:
        return {"const": rng.choice(values)}
    return {"enum": rng.sample(values, rng.randint(1, 4))}


def random_pattern(rng: random.Random) -> str:
    """A pattern of a few atoms, each repeated a bounded number of times."""
    return "".join(_atom(rng, 2) + _repeat(rng) for _ in range(rng.randint(1, 4)))


def _atom(rng: random.Random, depth: int) -> str:
    draw = rng.random()
    if depth and draw < 0.25:
        parts = (_atom(rng, depth - 1) + _repeat(rng) for _ in range(rng.randint(2, 3)))
        return f"({'|'.join(parts)})"
    if draw < 0.5:
        return rng.choice(("[a-f]", "[0-9]", "[A-Z]", '[^a-z"\\\\\\n]', "[.,;]", "[äöü]"))
    if draw < 0.6:
        return rng.choice((r"\.", r"\-", r"\(", r"\w", r"\d"))
    return rng.choice(string.ascii_letters + " _-:")


def _repeat(rng: random.Random) -> str:
    least = rng.randint(0, 2)
    return rng.choice(("", "", "?", f"{{{least},{least + rng.randint(0, 3)}}}", f"{{{least + 1}}}"))
