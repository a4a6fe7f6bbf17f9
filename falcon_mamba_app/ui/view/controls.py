"""The sampling controls: their components, presets, and the way to SamplingParams and back.

`ControlValues` is the one list of what the visitor can set; the components, the stored settings and
the API endpoints follow its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import gradio as gr

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ModelInfo, SamplingParams
from falcon_mamba_app.ui.view import answer_form
from falcon_mamba_app.ui.view.parts import part

MAX_NEW_TOKENS_SHOWN = 4_096  # where the server's own limit is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlValues:
    """What the controls show. `seed` is as typed, none of it a fresh one; `stop` has one a line."""

    system_prompt: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: float = 0
    min_p: float = 0.0
    top_n_sigma: float = 0.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_new_tokens: float = 512
    seed: float | str | None = None
    stop: str = ""
    answer_as: str = answer_form.TEXT
    form_details: str = ""


CONTROL_NAMES = tuple(f.name for f in fields(ControlValues))
# Those that a request has under the same name, but for seed and stop, which are typed as texts.
TEXTS = ("system_prompt", "seed", "stop", "answer_as", "form_details")
NUMBERS = tuple(name for name in CONTROL_NAMES if name not in TEXTS)
WHOLE_NUMBERS = tuple(f.name for f in fields(SamplingParams) if f.type == "int")

# None of them sets max_new_tokens, seed or stop: those are not about style.
PRESETS: Mapping[str, Mapping[str, float]] = {
    "Precise": {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "min_p": 0.0},
    "Balanced": {"temperature": 0.7, "top_p": 0.95, "top_k": 0, "min_p": 0.0},
    "Creative": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.05},
}

# What no preset names is off.
_NEUTRAL_STYLE = {
    name: getattr(SamplingParams(), name)
    for name in NUMBERS
    if name not in ("temperature", "max_new_tokens")
}


def default_values(model: ModelInfo | None) -> ControlValues:
    """The model's own defaults."""
    if model is None:
        return ControlValues()
    sampling = model.default_sampling
    numbers = {name: getattr(sampling, name) for name in NUMBERS}
    numbers["max_new_tokens"] = min(sampling.max_new_tokens, max_new_tokens_limit(model))
    return ControlValues(**numbers, seed=sampling.seed, stop="\n".join(sampling.stop))


def max_new_tokens_limit(model: ModelInfo | None) -> int:
    """The longest reply the slider offers."""
    return (model and model.max_new_tokens) or MAX_NEW_TOKENS_SHOWN


def with_preset(values: ControlValues, name: str) -> ControlValues:
    """The values with a preset's style; other filters and penalties off, the rest kept."""
    style: dict[str, Any] = {**_NEUTRAL_STYLE, **PRESETS[name]}
    return replace(values, **style)


def restored_values(saved: object, model: ModelInfo | None) -> ControlValues:
    """What a browser remembers, as far as it is sound; the model's defaults for the rest."""
    values = default_values(model)
    if not isinstance(saved, dict):
        return values
    for name in CONTROL_NAMES:
        if name not in saved:
            continue
        candidate = replace(values, **{name: saved[name]})
        try:
            sampling_params(candidate)
        except InvalidRequest:
            continue
        if answer_form.is_sound(candidate.answer_as, candidate.form_details):
            values = candidate
    return replace(values, max_new_tokens=min(values.max_new_tokens, max_new_tokens_limit(model)))


def sampling_params(values: ControlValues) -> SamplingParams:
    """The request's parameters. Raises InvalidRequest for what is not allowed."""
    if not isinstance(values.system_prompt, str) or not isinstance(values.stop, str):
        raise InvalidRequest("the system prompt and the stop strings are texts")
    numbers: dict[str, Any] = {name: getattr(values, name) for name in NUMBERS}
    numbers |= {name: _whole(name, numbers[name]) for name in NUMBERS if name in WHOLE_NUMBERS}
    stop = tuple(line for line in values.stop.splitlines() if line)
    return SamplingParams(**numbers, seed=_seed(values.seed), stop=stop)


def _whole(name: str, value: Any) -> int:
    """Sliders and number fields send 40 or 40.0, as they please."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InvalidRequest(f"{name} is {value!r}; it must be a whole number", param=name)
    return int(value)


def _seed(value: float | str | None) -> int | None:
    """A text field: a number field would round what has more than 15 digits."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        return _whole("seed", value)
    try:
        return int(value)
    except ValueError as error:
        sentence = f"seed is {value[:40]!r}; it must be a whole number"
        raise InvalidRequest(sentence, param="seed") from error


def in_words(values: ControlValues) -> str:
    """What a reply was asked with: the temperature, and whatever else is not neutral."""
    shown = [f"temperature {values.temperature:g}"]
    for name in NUMBERS:
        value = getattr(values, name)
        if name not in ("temperature", "max_new_tokens") and value != _NEUTRAL_STYLE[name]:
            shown.append(f"{name.replace('_', ' ')} {value:g}")
    if values.seed not in (None, ""):
        shown.append(f"seed {values.seed}")
    if values.answer_as != answer_form.TEXT:
        shown.append(f"as {values.answer_as.removesuffix(' of …')}")
    return ", ".join(shown)


@dataclass(frozen=True, slots=True)
class Controls:
    """The components, one for each field of ControlValues."""

    components: dict[str, gr.components.Component]
    presets: gr.HTML
    system_cost: gr.HTML
    reset: gr.Button

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `shown_controls` updates."""
        return [self.presets, *self.listed()]

    def listed(self) -> list[gr.components.Component]:
        """In the order of ControlValues."""
        return [self.components[name] for name in CONTROL_NAMES]


def values_of(given: tuple[Any, ...]) -> ControlValues:
    """The values as the components send them, in the order of `Controls.listed`.

    A page that has just opened sends None for a field that nobody has touched.
    """
    values = dict(zip(CONTROL_NAMES, given, strict=True))
    texts = {name: values[name] or "" for name in ("system_prompt", "stop", "form_details")}
    texts["answer_as"] = values["answer_as"] or answer_form.TEXT
    return ControlValues(**{**values, **texts})


def updates_for(values: ControlValues, model: ModelInfo | None) -> list[Any]:
    """Updates that make the components show `values`, in the order of `Controls.listed`."""
    others: dict[str, dict[str, Any]] = {
        "max_new_tokens": {"maximum": max_new_tokens_limit(model)},
        "system_prompt": {"visible": model is None or model.has_chat_template},
    }
    return [
        gr.update(value=getattr(values, name), **others.get(name, {})) for name in CONTROL_NAMES
    ]


def shown_controls(values: ControlValues, model: ModelInfo | None) -> list[Any]:
    """As `updates_for`, behind the presets, which show which of them the values are."""
    return [shown_presets(values), *updates_for(values, model)]


def shown_presets(values: ControlValues) -> dict[str, Any]:
    """The page's presets, each with all that it sets, and what is set now."""
    fixed = {name: {**_NEUTRAL_STYLE, **style} for name, style in PRESETS.items()}
    return {"fixed": fixed, "neutral": _NEUTRAL_STYLE, "now": asdict(values)}


def build_system_prompt() -> gr.Textbox:
    """Drawn above the conversation's settings, apart from the sliders."""
    return gr.Textbox(
        label="System prompt",
        placeholder="How the model should behave, for the whole conversation",
        lines=2,
        max_lines=8,
        elem_id="system-prompt",
    )


def build_controls(system_prompt: gr.Textbox, presets: gr.HTML) -> Controls:
    """Draw the sampling controls where the caller's layout context is."""
    cost = part("system-cost", template='<p class="system-cost" role="status"></p>')
    part("preset-row", template='<div class="presets"></div>')
    components: dict[str, gr.components.Component] = {
        "system_prompt": system_prompt,
        "temperature": _slider(
            "temperature", 0, 2, 0.05, "Temperature", "0 always takes the likeliest token"
        ),
        "max_new_tokens": _slider(
            "max_new_tokens", 1, MAX_NEW_TOKENS_SHOWN, 1, "Longest reply (tokens)"
        ),
        "top_p": _slider(
            "top_p", 0.05, 1, 0.01, "Top p", "Keeps the likeliest tokens up to this sum"
        ),
        "top_k": _slider("top_k", 0, 200, 1, "Top k", "Keeps this many tokens; 0 keeps all"),
        "min_p": _slider("min_p", 0, 0.5, 0.01, "Min p", "Relative to the likeliest token"),
    }
    with gr.Accordion("More filters", open=True, elem_classes="quiet"):
        components |= {
            "typical_p": _slider(
                "typical_p",
                0.05,
                1,
                0.01,
                "Typical p",
                "Keeps what surprises as expected; 1 is off",
            ),
            "top_n_sigma": _slider(
                "top_n_sigma", 0, 5, 0.05, "Top n sigma", "Deviations below the best; 0 is off"
            ),
            "xtc_probability": _slider(
                "xtc_probability",
                0,
                1,
                0.05,
                "XTC probability",
                "How often top choices are dropped",
            ),
            "xtc_threshold": _slider(
                "xtc_threshold",
                0,
                0.5,
                0.01,
                "XTC threshold",
                "From here on a token is a top choice",
            ),
        }
    with gr.Accordion("Penalties, seed and stop strings", open=True, elem_classes="quiet"):
        components |= {
            "repetition_penalty": _slider("repetition_penalty", 1, 2, 0.05, "Repetition penalty"),
            "presence_penalty": _slider("presence_penalty", -2, 2, 0.1, "Presence penalty"),
            "frequency_penalty": _slider("frequency_penalty", -2, 2, 0.1, "Frequency penalty"),
            "seed": gr.Textbox(label="Seed", placeholder="A fresh one each time", max_lines=1),
            "stop": gr.Textbox(
                label="Stop strings", placeholder="One a line", lines=2, max_lines=6
            ),
        }
    components |= answer_form.build_answer_form()
    reset = gr.Button("Reset to the model's defaults", size="sm", elem_id="reset-controls")
    return Controls(components, presets, cost, reset)


def slider_defaults(model: ModelInfo | None) -> dict[str, float]:
    """The model's default for each slider, by the id of its element; read by assets/page.js."""
    values = default_values(model)
    return {_id_of(name): getattr(values, name) for name in NUMBERS}


def _slider(
    name: str, low: float, high: float, step: float, label: str, info: str | None = None
) -> gr.Slider:
    """Without Gradio's own reset button, which knows nothing of the model's defaults."""
    return gr.Slider(
        low,
        high,
        getattr(ControlValues(), name),
        step=step,
        label=label,
        info=info,
        elem_id=_id_of(name),
        buttons=[],
    )


def _id_of(name: str) -> str:
    return f"control-{name.replace('_', '-')}"
