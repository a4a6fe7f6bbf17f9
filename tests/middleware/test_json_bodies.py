"""How much JSON may hold: counted before it is parsed, a little at a time."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from falcon_mamba_app.http.errors import BodyTooLarge
from falcon_mamba_app.http.json_bodies import NotUtf8, check_values
from falcon_mamba_app.middleware.body_limits import MAX_COPY_BYTES, PAGE_FRAME_BYTES
from falcon_mamba_app.middleware.page_bodies import MAX_VALUES
from falcon_mamba_app.ui.conversation.browser_copy import MAX_SAVED_CHARS
from tests.support.web_fixtures import visiting

JSON = {"Content-Type": "application/json"}
JOIN = "/gradio_api/queue/join"
CHAT = "/v1/chat/completions"
MARKS = '[]{},:"\\é\n'


def num_marks(value: object) -> int:
    """Commas and openings outside of texts: what is counted."""
    if isinstance(value, dict):
        return max(1, len(value)) + sum(map(num_marks, value.values()))
    if isinstance(value, list):
        return max(1, len(value)) + sum(map(num_marks, value))
    return 0


@pytest.mark.parametrize("seed", range(20))
async def test_what_stands_in_texts_is_not_counted(seed):
    chance = random.Random(seed)
    texts = ["".join(chance.choices(MARKS, k=chance.randrange(300))) for _ in range(60)]
    value = {"a": texts, "b": [[{"c": text}] for text in texts]}
    body = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
    exact = num_marks(value)
    await check_values(body, max_values=exact)
    with pytest.raises(BodyTooLarge, match=f"more than {exact - 1} values"):
        await check_values(body, max_values=exact - 1)


@pytest.mark.parametrize(
    "text", ["[" * 400_000, '\\"' * 200_000, "\\\\" * 200_000, ',"' * 200_000], ids=lambda t: t[:2]
)
async def test_a_long_text_of_marks_is_a_text(text):
    """Longer than what is looked at between two turns, escapes across the border."""
    for shift in ("", "x"):
        await check_values(json.dumps([shift + text]).encode(), max_values=1_000)


@pytest.mark.parametrize("end", [b'"\\', b'"', b'"a', b'\\"'])
async def test_a_text_without_an_end_is_left_to_the_parser(end):
    await check_values(b'["' + b"," * 3_000 + end, max_values=1_000)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_other_encodings_are_refused(encoding):
    with pytest.raises(NotUtf8):
        await check_values(("[" + "1," * 2_000 + "1]").encode(encoding), max_values=1_000)


async def test_the_loop_goes_on_while_values_are_counted():
    turns, counting = (
        0,
        asyncio.create_task(check_values(b"[" + b'",",' * 1_000_001 + b"0]", max_values=1_000_000)),
    )
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 200
    assert isinstance(counting.exception(), BodyTooLarge)


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/run/predict", "/gradio_api/call/chat"])
async def test_the_page_is_sent_few_values(path):
    """Five million of them stopped the server for 2.5 s and stayed in its memory."""
    body = b'{"data":[' + b"{}," * MAX_VALUES + b'{}],"fn_index":0,"session_hash":"q"}'
    async with visiting() as client:
        response = await client.post(path, content=body, headers=JSON)
    assert response.status_code == 413
    assert f"more than {MAX_VALUES} values" in response.json()["detail"]


async def test_the_page_is_sent_what_a_browser_keeps_and_no_more():
    assert MAX_COPY_BYTES == 4 * MAX_SAVED_CHARS
    body = json.dumps({"data": ["𝔵" * MAX_SAVED_CHARS], "session_hash": "q"}, ensure_ascii=False)
    async with visiting() as client:
        response = await client.post(JOIN, content=body.encode(), headers=JSON)
        assert response.status_code != 413
        body = b" " * (MAX_COPY_BYTES + PAGE_FRAME_BYTES + 1)
        response = await client.post(JOIN, content=body, headers=JSON)
        assert response.status_code == 413
        response = await client.post(CHAT, content=body, headers=JSON)
        assert response.status_code == 400
