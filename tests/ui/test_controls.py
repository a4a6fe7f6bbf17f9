from dataclasses import replace

import pytest

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import ChoiceForm, JsonForm, ModelInfo, SamplingParams
from falcon_mamba_app.ui.view.answer_form import CHOICE, JSON, TEXT, form_of
from falcon_mamba_app.ui.view.controls import (
    CONTROL_NAMES,
    PRESETS,
    TEXTS,
    ControlValues,
    default_values,
    in_words,
    restored_values,
    sampling_params,
    slider_defaults,
    values_of,
    with_preset,
)

MODEL = ModelInfo(
    id="m",
    has_chat_template=True,
    max_new_tokens=256,
    default_sampling=SamplingParams(temperature=0.4, top_p=0.9, stop=("a", "b")),
)


def test_the_controls_start_from_the_model_s_own_defaults_within_its_limit():
    values = default_values(MODEL)
    assert (values.temperature, values.top_p, values.stop) == (0.4, 0.9, "a\nb")
    assert values.max_new_tokens == 256


def test_the_defaults_make_the_request_the_model_asks_for():
    assert sampling_params(default_values(MODEL)) == replace(
        MODEL.default_sampling, max_new_tokens=256
    )


def test_stop_strings_are_one_a_line_and_blank_lines_are_none():
    assert sampling_params(ControlValues(stop="END\n\nUser:")).stop == ("END", "User:")


@pytest.mark.parametrize(
    ("seed", "expected"), [(None, None), ("", None), (7, 7), (7.0, 7), (" 7 ", 7)]
)
def test_an_empty_seed_is_a_fresh_one_each_time(seed, expected):
    assert sampling_params(ControlValues(seed=seed)).seed == expected


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_allowed_and_keeps_what_is_not_style(name):
    values = with_preset(ControlValues(seed=3, stop="x", max_new_tokens=9), name)
    params = sampling_params(values)
    assert (params.seed, params.stop, params.max_new_tokens) == (3, ("x",), 9)


@pytest.mark.parametrize("bad", [{"top_k": 1.5}, {"seed": "7.5"}, {"temperature": -1}, {"stop": 3}])
def test_what_is_not_allowed_is_refused(bad):
    with pytest.raises(InvalidRequest):
        sampling_params(replace(ControlValues(), **bad))


def test_a_seed_too_large_is_quoted_as_it_was_typed():
    with pytest.raises(InvalidRequest, match="seed is 99999999999999999999; allowed"):
        sampling_params(ControlValues(seed="99999999999999999999"))


def test_an_emptied_slider_finds_the_model_s_default():
    assert slider_defaults(MODEL)["control-temperature"] == 0.4
    assert slider_defaults(MODEL)["control-max-new-tokens"] == 256


@pytest.mark.parametrize("saved", [None, [], "x", {"temperature": "hot"}, {"unknown": 1}])
def test_unsound_saved_settings_fall_back_to_the_model_s_defaults(saved):
    assert restored_values(saved, MODEL) == default_values(MODEL)


def test_sound_saved_settings_come_back_within_the_model_s_limit():
    values = restored_values({"temperature": 1.5, "max_new_tokens": 9_999, "top_p": 7}, MODEL)
    assert (values.temperature, values.max_new_tokens, values.top_p) == (1.5, 256, 0.9)


def test_a_text_that_nobody_has_touched_is_empty():
    """A message sent in a page's first moments was refused: its fields still hold None."""
    given = tuple(
        None if name in TEXTS else getattr(ControlValues(), name) for name in CONTROL_NAMES
    )
    assert sampling_params(values_of(given)) == sampling_params(ControlValues())
    assert values_of(given).system_prompt == ""


@pytest.mark.parametrize(
    "answer_as,details,form",
    [
        (TEXT, "anything", None),
        (JSON, "", JsonForm('{"type": "object"}', is_lenient=True)),
        (JSON, '{"type": "array"}', JsonForm('{"type": "array"}', is_lenient=True)),
        (CHOICE, " yes\n\nno, thank you\n", ChoiceForm(("yes", "no, thank you"))),
    ],
)
def test_a_visitor_chooses_the_form_of_replies(answer_as, details, form):
    assert form_of(answer_as, details) == form


@pytest.mark.parametrize("answer_as,details", [(CHOICE, " "), (JSON, "{"), (JSON, "[]"), ("x", "")])
def test_a_form_that_says_nothing_is_refused_in_a_sentence(answer_as, details):
    with pytest.raises(InvalidRequest):
        form_of(answer_as, details)


def test_a_remembered_form_is_restored_and_a_spoiled_one_is_not():
    saved = {"answer_as": CHOICE, "form_details": "a\nb"}
    values = restored_values(saved, MODEL)
    assert (values.answer_as, values.form_details) == (CHOICE, "a\nb")
    assert "as a choice" in in_words(values)
    for spoiled in ({"answer_as": "x"}, {"form_details": 5}, {"answer_as": []}):
        values = restored_values(spoiled, MODEL)
        assert (values.answer_as, values.form_details) == (TEXT, "")
