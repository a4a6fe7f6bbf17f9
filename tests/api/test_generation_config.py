"""What `transformers chat` sends: the model is asked for first, and sampling has other names."""

from __future__ import annotations

import json

import pytest
from transformers import GenerationConfig

from tests.support.api_fixtures import USER, sse_values

CHAT = "/v1/chat/completions"


async def test_the_model_is_loaded_already(client):
    answer = await client.post("/load_model", json={"model": "echo"})
    assert sse_values(answer.text) == [{"status": "ready", "model": "echo", "cached": True}]
    assert (await client.post("/load_model", json={"model": "another"})).status_code == 404


async def test_its_config_is_understood(client, service):
    config = GenerationConfig(do_sample=True, max_new_tokens=7, top_k=5, temperature=0.5)
    body = {"messages": [USER], "generation_config": config.to_json_string(), "top_k": 9}
    assert (await client.post(CHAT, json=body)).status_code == 200
    sampling = service.requests[-1].sampling
    assert (sampling.max_new_tokens, sampling.top_k, sampling.temperature) == (7, 9, 0.5)
    greedy = GenerationConfig(do_sample=False).to_json_string()
    await client.post(CHAT, json={"messages": [USER], "generation_config": greedy})
    assert service.requests[-1].sampling.temperature == 0


@pytest.mark.parametrize("config", ["{", "[]", 5, json.dumps({"penalty_alpha": 0.5}), "[" * 9_999])
async def test_a_config_that_asks_for_something_else_is_refused(client, config):
    answer = await client.post(CHAT, json={"messages": [USER], "generation_config": config})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "generation_config")
