"""A body of too many values is refused before it is parsed; what strings hold costs nothing."""

from __future__ import annotations

import json
import random

import pytest

from falcon_mamba_app.api import body_shape
from falcon_mamba_app.api.body_shape import MAX_VALUES, refuse_too_many_values
from falcon_mamba_app.api.planning import MAX_LOGPROBS_IN_ALL, plan_chat
from falcon_mamba_app.api.schemas import ChatBody, parse_body
from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.http import json_bodies
from falcon_mamba_app.http.json_bodies import structure_so_far
from falcon_mamba_app.protocol import ModelInfo
from tests.support.api_fixtures import USER


def of_structure(value) -> tuple[int, int]:
    """Containers and separators that the value's JSON has, counted the long way."""
    if isinstance(value, dict):
        inner = [of_structure(item) for item in value.values()]
        own = (1, 2 * len(value) - bool(value))
    elif isinstance(value, list):
        inner = [of_structure(item) for item in value]
        own = (1, max(0, len(value) - 1))
    else:
        return 0, 0
    return own[0] + sum(i[0] for i in inner), own[1] + sum(i[1] for i in inner)


def random_value(rng: random.Random, depth: int = 4):
    kind = rng.random()
    if depth and kind < 0.3:
        return [random_value(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    if depth and kind < 0.6:
        return {f'{n},"\\': random_value(rng, depth - 1) for n in range(rng.randint(0, 3))}
    return rng.choice([1, True, None, "", "a,{[:", '\\"', "\\", '"', '[["\\\\', "ß{"])


def test_structure_is_counted_exactly_wherever_a_part_ends(monkeypatch):
    rng = random.Random(7)
    for _ in range(200):
        value = [random_value(rng) for _ in range(5)]
        data = json.dumps(value).encode()
        monkeypatch.setattr(json_bodies, "PART_BYTES", rng.choice([2, 3, 7, 64]))
        *_, whole = structure_so_far(data)
        assert (whole.containers, whole.commas + whole.colons) == of_structure(value)


def test_a_body_is_refused_from_the_first_value_too_many(monkeypatch):
    data = json.dumps({"a": [1, 2, 3], "b": {"c": {}}}).encode()
    monkeypatch.setattr(body_shape, "MAX_VALUES", 3 + 4 * 3 + 4 * 4)
    refuse_too_many_values(data)
    monkeypatch.setattr(body_shape, "MAX_VALUES", body_shape.MAX_VALUES - 1)
    with pytest.raises(InvalidRequest, match="this server reads no more"):
        refuse_too_many_values(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"messages":[' + b"{}," * (MAX_VALUES // 5) + b"{}]}",
        b"[" * (MAX_VALUES // 4 + 1),
        b"{" + b'"a":0,' * (MAX_VALUES // 5) + b'"b":0}',
        b'{"prompt":[' + b"1," * (MAX_VALUES + 1) + b"1]}",
        b'{"stop":[' + b'"",' * (MAX_VALUES + 1) + b'""]}',
    ],
    ids=["objects", "lists", "fields", "ids", "strings"],
)
def test_too_many_values_are_refused(data):
    with pytest.raises(InvalidRequest, match="over 500,000 values, of which a field, a list"):
        refuse_too_many_values(data)


def test_text_is_not_structure():
    text = "[{,:" * 500_000 + "\\" * 99 + '"' * 99
    refuse_too_many_values(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())


def test_log_probabilities_beyond_what_an_answer_can_hold_are_refused_with_the_figures():
    model = ModelInfo(id="m", has_chat_template=True)
    body = {"messages": [USER], "logprobs": True, "top_logprobs": 20, "n": 128}
    within = parse_body(ChatBody, json.dumps({**body, "max_tokens": 128}).encode())
    assert len(plan_chat(within, model, None).replies) == 128
    beyond = parse_body(ChatBody, json.dumps({**body, "max_tokens": 4_096}).encode())
    with pytest.raises(InvalidRequest, match=f"11,010,048 .* {MAX_LOGPROBS_IN_ALL:,}"):
        plan_chat(beyond, model, None)
