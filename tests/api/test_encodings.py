"""Compressed bodies are read like plain ones, and never expand without limit."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.http import encodings
from tests.support.api_fixtures import USER, bounded, in_process
from tests.support.echo_service import EchoService

URL = "/v1/chat/completions"
BODY = json.dumps({"messages": [USER]}).encode()


async def answer_to(content: bytes, encoding: str):
    service = EchoService()
    await service.start()
    headers = {"content-type": "application/json", "content-encoding": encoding}
    async with in_process(bounded(create_api(service))) as http:
        return await http.post(URL, content=content, headers=headers)


SENT = {
    "gzip": (gzip.compress(BODY), "gzip"),
    "gzip in two files": (gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), "GZIP"),
    "deflate": (zlib.compress(BODY), "deflate"),
    "as it is": (BODY, "identity"),
}


async def test_a_body_of_very_many_files_is_refused_before_they_are_read():
    answer = await answer_to(gzip.compress(b"") * 50_000, "gzip")
    assert answer.status_code == 400 and "more than 16 files" in answer.text


@pytest.mark.parametrize("content,encoding", SENT.values(), ids=SENT)
async def test_a_compressed_body_is_read(content, encoding):
    answer = await answer_to(content, encoding)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "You said: hello there"


REFUSED = {
    "not what it says": (BODY, "gzip", 400, "not compressed"),
    "cut off": (gzip.compress(BODY)[:-9], "gzip", 400, "ends too early"),
    "unknown": (BODY, "br", 415, "gzip, deflate"),
    "twice": (gzip.compress(gzip.compress(BODY)), "gzip, gzip", 415, "gzip, deflate"),
    "followed by something": (gzip.compress(BODY) + b"x", "gzip", 400, "ends too early"),
}


@pytest.mark.parametrize("content,encoding,status,words", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_expanded_is_refused(content, encoding, status, words):
    answer = await answer_to(content, encoding)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


async def test_a_small_body_of_gigabytes_is_refused_and_never_expanded(monkeypatch):
    monkeypatch.setattr(encodings, "MAX_EXPANDED_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**24)
    assert len(bomb) < 2**15
    answer = await answer_to(bomb, "gzip")
    assert answer.status_code == 413
    answer = await answer_to(gzip.compress(b" " * 2**19) * 40, "gzip")
    assert answer.status_code == 413
