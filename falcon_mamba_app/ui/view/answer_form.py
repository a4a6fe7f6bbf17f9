"""The form that a visitor wants replies to have: text, JSON, or one of a few choices."""

from __future__ import annotations

import json

import gradio as gr

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, Form, JsonForm

TEXT, JSON, CHOICE = "text", "JSON", "a choice of …"
ANY_OBJECT = '{"type": "object"}'


def form_of(answer_as: str, details: str) -> Form | None:
    """The form for a request. `details` holds the choices, one a line, or for JSON a schema or
    nothing. Raises InvalidRequest.
    """
    if answer_as == TEXT:
        return None
    if answer_as == CHOICE:
        choices = tuple(line.strip() for line in details.splitlines() if line.strip())
        if not choices:
            raise InvalidRequest(
                "the reply is to be a choice and there are none; write one a line under"
                " Settings, The reply's form"
            )
        return ChoiceForm(choices)
    if answer_as != JSON:
        raise InvalidRequest(f"a reply has the form {TEXT}, {JSON} or {CHOICE}")
    return JsonForm(_schema(details.strip()) if details.strip() else ANY_OBJECT, is_lenient=True)


def is_sound(answer_as: object, details: object) -> bool:
    """Whether the controls can show these; what is missing is said when a reply is asked for."""
    return answer_as in (TEXT, JSON, CHOICE) and isinstance(details, str)


def build_answer_form() -> dict[str, gr.components.Component]:
    """Draw the two controls where the caller's layout context is."""
    with gr.Accordion("The reply's form", open=True, elem_classes="quiet"):
        return {
            "answer_as": gr.Radio([TEXT, JSON, CHOICE], value=TEXT, label="Answer as"),
            "form_details": gr.Textbox(
                label="Choices, one a line; for JSON a schema, if any",
                lines=2,
                max_lines=8,
                elem_id="form-details",
            ),
        }


def _schema(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "the schema under Settings, The reply's form is no JSON; correct it, or leave it empty"
        ) from error
    if not isinstance(value, dict):
        raise InvalidRequest('a JSON Schema is an object, as in {"type": "object"}')
    return json.dumps(value)
