"""Reads the form of a reply from a body, whichever way a client names it.

OpenAI's is `response_format`, vLLM's `structured_outputs`. vLLM's older `guided_…` fields,
llama.cpp's `json_schema` and `grammar`, and TGI's `value` beside a type mean the same. Whether a
schema or a pattern can be held to is checked where it is compiled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from falcon_mamba_app.api.fields import Cleaner, shown
from falcon_mamba_app.errors import InvalidRequest, NotSupported
from falcon_mamba_app.protocol import ChoiceForm, Form, GrammarForm, JsonForm, RegexForm

ANY_OBJECT = {"type": "object"}
# Other servers' names for an entry of `structured_outputs`.
OTHER_NAMES = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "json_schema": "json",
    "grammar": "grammar",
}
# JSON here never has optional white space; there is no second way to hold a reply to a form.
_OUTPUTS = Cleaner(
    {
        "disable_any_whitespace": (bool,),
        "disable_fallback": (bool,),
        "disable_additional_properties": (False,),
        "enable_in_reasoning": (bool,),
    },
    own=("json", "json_object", "regex", "choice", "grammar"),
)


def with_one_name(body: dict[str, Any]) -> dict[str, Any]:
    """The body with other servers' names for a form under `structured_outputs`."""
    others = {name: body[name] for name in OTHER_NAMES if body.get(name) not in (None, "")}
    if not others:
        return body
    kept = {name: value for name, value in body.items() if name not in OTHER_NAMES}
    given = kept.get("structured_outputs") or {}
    if not isinstance(given, dict):
        return kept
    named = {OTHER_NAMES[name]: value for name, value in others.items()}
    return {**kept, "structured_outputs": {**given, **named}}


def form_of(
    response_format: dict[str, Any] | None, structured_outputs: dict[str, Any] | None
) -> Form | None:
    """The one form that the two fields ask for, or None. Raises InvalidRequest."""
    asked = [
        form for form in (_of_format(response_format), _of_outputs(structured_outputs)) if form
    ]
    if len(asked) > 1:
        raise InvalidRequest(
            "response_format and structured_outputs ask for a form each; send one",
            param="structured_outputs",
        )
    return asked[0] if asked else None


def _of_format(value: dict[str, Any] | None) -> Form | None:
    """OpenAI's field. Without `strict`, keywords of a schema that cannot be held to are ignored."""
    kind = (value or {"type": "text"}).get("type")
    if value is None or kind == "text":
        return None
    if kind == "json_schema":
        return _of_json_schema(value.get("json_schema"))
    if kind in ("json_object", "json"):
        schema = value.get("schema", value.get("value", ANY_OBJECT))
        return _json_form(schema, "response_format.schema", is_lenient=True)
    if kind == "regex":
        return _regex_form(value.get("value"), "response_format.value")
    raise InvalidRequest(
        f"response_format.type is {shown(kind)}; allowed are text, json_object, json_schema"
        " and regex",
        param="response_format.type",
    )


def _of_json_schema(value: Any) -> JsonForm:
    path = "response_format.json_schema"
    if not isinstance(value, dict):
        raise InvalidRequest(
            f'{path} is {shown(value)}; it takes {{"name": "…", "schema": {{…}}, "strict": true}}',
            param=path,
        )
    strict = value.get("strict")
    if strict not in (None, True, False):
        raise InvalidRequest(
            f"{path}.strict is {shown(strict)}; allowed are true and false", param=f"{path}.strict"
        )
    schema = value.get("schema", value.get("value", {}))  # TGI has `value` here too
    return _json_form(schema, f"{path}.schema", is_lenient=not strict)


def _of_outputs(value: dict[str, Any] | None) -> Form | None:
    """vLLM's field, with exactly one form."""
    if value is None:
        return None
    path = "structured_outputs"
    if "structural_tag" in value and value["structural_tag"] is not None:
        raise NotSupported(
            f"{path}.structural_tag is not supported; {path} takes one of {', '.join(READERS)}",
            param=f"{path}.structural_tag",
        )
    given = _OUTPUTS.clean(value, f"{path}.")
    if given.get("json_object") is False:
        del given["json_object"]
    if len(given) > 1:
        raise InvalidRequest(f"{path} has {' and '.join(given)}; send one of them", param=path)
    for name, entry in given.items():
        return READERS[name](entry, f"{path}.{name}")
    return None


def _json_form(value: Any, path: str, *, is_lenient: bool = False) -> JsonForm:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequest(
                f"{path} is a text that is no JSON; send a JSON Schema", param=path
            ) from None
    if not isinstance(value, dict | bool):
        raise InvalidRequest(f"{path} is {shown(value)}; send a JSON Schema", param=path)
    return JsonForm(json.dumps(value, ensure_ascii=False), is_lenient)


def _any_object(value: Any, path: str) -> JsonForm:
    if value is not True:
        raise InvalidRequest(f"{path} is {shown(value)}; allowed is true", param=path)
    return _json_form(ANY_OBJECT, path)


def _regex_form(value: Any, path: str) -> RegexForm:
    return RegexForm(_text(value, path, "a pattern as a text"))


def _grammar_form(value: Any, path: str) -> GrammarForm:
    return GrammarForm(_text(value, path, "a grammar as a text, in Lark's notation or GBNF"))


def _choice_form(value: Any, path: str) -> ChoiceForm:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InvalidRequest(f"{path} is {shown(value)}; it takes a list of texts", param=path)
    return ChoiceForm(tuple(value))


def _text(value: Any, path: str, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{path} is {shown(value)}; it takes {what}", param=path)
    return value


READERS: Mapping[str, Callable[[Any, str], Form]] = {
    "json": _json_form,
    "json_object": _any_object,
    "regex": _regex_form,
    "choice": _choice_form,
    "grammar": _grammar_form,
}
