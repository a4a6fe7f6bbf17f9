"""Damaged requests and files: each gets a 4xx in one sentence or a good answer, none a 5xx."""

from __future__ import annotations

import json
import random
from typing import Any

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.library.exchange import read
from falcon_mamba_app.ui.conversation.session import Session
from falcon_mamba_app.ui.conversation.shelf import opened, opened_text
from falcon_mamba_app.ui.view.messages import shown_conversation
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService

CHAT: dict[str, Any] = {
    "messages": [{"role": "system", "content": "be kind"}, USER],
    "temperature": 0.5,
    "stop": ["x"],
    "n": 2,
    "stream_options": {"include_usage": True},
    "stream": True,
    "logprobs": True,
    "top_logprobs": 2,
    "max_tokens": 4,
}
COMPLETION: dict[str, Any] = {
    "prompt": [[1, 2], "three"],
    "echo": True,
    "logprobs": 1,
    "max_tokens": 2,
    "seed": 5,
}
ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**40,
    -(10**300),
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "\ud800",
    "\x00",
    "word " * 500,
    [],
    [[]],
    [None],
    {},
    {"": {}},
    {"type": "text"},
    [{"type": "text", "text": "\udc00"}],
]
ODD_KEYS = ["tools", "seed", "user", "__class__", "", "\ud800", "best_of", "prompt", "messages"]


def _mutate(rng: random.Random, value: Any) -> Any:
    """`value` with one place changed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        changed = dict(value)
        key = rng.choice(list(value) if rng.random() < 0.9 else ODD_KEYS)
        changed[key] = _mutate(rng, value[key]) if key in value else rng.choice(ODD_VALUES)
        if rng.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _mutate(rng, value[place]), *value[place + 1 :]]
    return rng.choice(ODD_VALUES)


def _damage(rng: random.Random, data: bytes) -> bytes:
    """`data` with a few bytes replaced, or cut short."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged[: rng.randint(1, len(damaged))] if rng.random() < 0.3 else damaged)


async def test_no_damaged_request_breaks_the_server():
    rng = random.Random(20240807)
    service = EchoService()
    await service.start()
    statuses: dict[int, int] = {}
    async with in_process(create_api(service)) as client:
        for _ in range(300):
            path, body = rng.choice([("chat/completions", CHAT), ("completions", COMPLETION)])
            for _ in range(rng.randint(1, 2)):
                body = _mutate(rng, body)
            data = json.dumps(body).encode()
            if rng.random() < 0.3:
                data = _damage(rng, data)
            headers = {"content-type": "application/json"}
            response = await client.post(f"/v1/{path}", content=data, headers=headers)
            assert response.status_code == 200 or 400 <= response.status_code < 500, data
            if response.status_code != 200:
                assert "\n" not in response.json()["error"]["message"], data
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        healthy = await client.post("/v1/chat/completions", json={"messages": [USER]})
    assert healthy.status_code == 200
    assert service.running == 0
    assert statuses[200] > 10 and statuses[400] > 100, statuses


SHOWN_AT = (
    *("/v1/sessions/{id}", "/v1/sessions/{id}/export?format=zip", "/v1/conversations/{id}"),
    *("/v1/conversations/{id}/items", "/v1/responses/{last}", "/v1/responses/{last}/input_items"),
    "/v1/sessions/{id}/state?message_id={last}",
)
REPLY: dict[str, Any] = {
    "id": "b",
    "parent_id": "a",
    "role": "assistant",
    "text": "Hello",
    "model": "nano",
    "num_tokens": 1,
    "created_s": 1.5,
    "sampling": {"temperature": 0.5},
    "extra": {
        "settings": "seed 1",
        "strip": "1x1:AA==",
        "prompt_tokens": 5,
        "reused_tokens": 3,
        "parts": ["Hello"],
        "role": "developer",
        "continuations": [[0, "Hel"]],
        "response": {"asked": {"book": None}, "input_ids": ["a"], "lengths": [5], "usage": {}},
    },
}
CONVERSATION: dict[str, Any] = {
    "format": "falcon-mamba conversation",
    "version": 1,
    "conversation": {"title": "t", "settings": {"x": 1.5}, "extra": {"metadata": {}}},
    "messages": [{"id": "a", "parent_id": None, "role": "user", "text": "Hi"}, REPLY],
    "branches": [{"name": "here", "message_id": "b"}],
}


async def test_no_damaged_file_of_a_conversation_breaks_what_shows_it():
    rng = random.Random(20261201)
    service = EchoService()
    await service.start()
    num_taken = 0
    async with in_process(create_api(service)) as client:
        for _ in range(50):
            data = json.dumps(_mutate(rng, CONVERSATION)).encode()
            taken = await client.post("/v1/sessions/import", content=data)
            assert taken.status_code in (200, 400), (taken.text, data)
            for one in taken.json().get("data", ()):
                num_taken += 1
                last = (await client.get(f"/v1/sessions/{one['id']}")).json()["messages"][-1]["id"]
                for path in SHOWN_AT:
                    shown = await client.get(path.format(id=one["id"], last=last))
                    assert shown.status_code < 500, (path, shown.text, data)
                for before in ({"conversation": one["id"]}, {"previous_response_id": last}):
                    body = {"input": "x", "max_output_tokens": 1, **before}
                    answer = await client.post("/v1/responses", json=body)
                    assert answer.status_code < 500, (answer.text, data)
            for tree in read(data)[0] if taken.status_code == 200 else ():
                session = Session("id", 0.0)
                session.tree, session.document = opened(tree), opened_text(tree)
                json.dumps(shown_conversation(session))
    assert num_taken > 10
