"""Content that is no text is refused wherever it comes: by a sentence that stands alone, and whole.

The kinds are those of the newest official clients' own types, and of other servers. A part beside
it that is text changes nothing: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import openai.types.chat as chat
import openai.types.responses as responses
import pytest
from anthropic.types import ContentBlockParam

from falcon_mamba_app.api.routes import create_api
from tests.support.api_fixtures import in_process
from tests.support.echo_service import EchoService


def kinds(union: Any) -> set[str]:
    """The `type` of each of the union's members."""
    return {name for member in get_args(union) for name in _names(get_type_hints(member)["type"])}


def _names(hint: Any) -> Iterator[str]:
    for one in get_args(hint):
        if isinstance(one, str):
            yield one
        else:
            yield from _names(one)


CHAT = kinds(chat.ChatCompletionContentPartParam) - {"text"}
PARTS = kinds(responses.ResponseInputContentParam) - {"input_text"}
ITEMS = kinds(responses.ResponseInputItemParam) - {"message"}
BLOCKS = kinds(ContentBlockParam) - {"text", "tool_use", "tool_result"}
ELSEWHERE = {"image", "video", "audio", "video_url", "audio_url", "input_video", "document"}
ODD = [None, 5, "", "TEXT", ["text"], {"type": "text"}]

WORDS = {"type": "text", "text": "Look at this."}
INPUT_WORDS = {"type": "input_text", "text": "Look at this."}


def part(kind: Any) -> dict[str, Any]:
    """A part of this kind with more than any kind needs."""
    source = {"url": "data:image/png;base64,AAAA", "data": "AAAA", "format": "wav"}
    names = ("image_url", "input_audio", "file", "source", "audio_url", "video_url")
    return {"type": kind, "file_id": "file_1", **dict.fromkeys(names, source)}


def cases() -> Iterator[Any]:
    """Address, body, and where in it the part is."""
    for kind in sorted(CHAT | ELSEWHERE | PARTS) + ODD:
        for role in ("user", "system", "assistant", "tool"):
            message = {"role": role, "content": [WORDS, part(kind)], "tool_call_id": "a"}
            if role != "tool":
                del message["tool_call_id"]
            body = {"messages": [{"role": "user", "content": "x"}, message]}
            yield "/v1/chat/completions", body, "messages[1].content[1].type", kind
        yield (
            "/tokenize",
            {"messages": [{"role": "user", "content": [part(kind)]}]},
            ("messages[0].content[0].type"),
            kind,
        )
    for kind in sorted(PARTS | CHAT | ELSEWHERE) + ODD:
        for role in ("user", "developer"):
            item = {"role": role, "content": [INPUT_WORDS, part(kind)]}
            where = "input[1].content[1].type"
            yield "/v1/responses", {"input": [{"role": "user", "content": "x"}, item]}, where, kind
        for_items = {"items": [{"role": "user", "content": [INPUT_WORDS, part(kind)]}]}
        yield "/v1/conversations", for_items, "items[0].content[1].type", kind
    for kind in sorted(ITEMS | PARTS) + [5, ""]:
        said = {"input": [{"role": "user", "content": "x"}, part(kind)]}
        yield "/v1/responses", said, "input[1].type", kind
    for kind in sorted(BLOCKS | ELSEWHERE) + ODD:
        result = {"type": "tool_result", "tool_use_id": "a", "content": [WORDS, part(kind)]}
        for content, where in (
            ([WORDS, part(kind)], "content[1].type"),
            ([{"type": "tool_result", "tool_use_id": "a"}, part(kind)], "content[1].type"),
            ([result], "content[0].content[1].type"),
        ):
            said = {"messages": [{"role": "user", "content": content}], "max_tokens": 5}
            yield "/v1/messages", said, f"messages[0].{where}", kind


async def test_every_kind_of_content_but_text_is_refused_whole_by_a_sentence_of_its_own():
    service = EchoService()
    await service.start()
    async with in_process(create_api(service)) as client:
        for path, body, where, kind in cases():
            answer = await client.post(path, json=body)
            error = answer.json().get("error", {})
            told = error.get("message", "")
            assert answer.status_code == 400, (path, body, answer.text)
            assert error["param"] == where and told.startswith(f"{where} is "), (path, body, error)
            assert "the model reads text" in told and ": send " in told
            assert "\n" not in told and len(told) < 300
            if isinstance(kind, str) and kind:
                assert kind in told
        listed = (await client.get("/v1/sessions")).json()["data"]
    assert service.requests == [] and listed == []


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("image_url", "no images"),
        ("input_audio", "no sound"),
        ("video_url", "no video"),
        ("input_file", "no files"),
        ("document", "/v1/books"),
    ],
)
async def test_the_sentence_says_what_the_model_cannot_do_and_what_helps(kind, what):
    service = EchoService()
    await service.start()
    async with in_process(create_api(service)) as client:
        said = {"messages": [{"role": "user", "content": [part(kind)]}]}
        error = (await client.post("/v1/chat/completions", json=said)).json()["error"]
    assert what in error["message"] and error["code"] == "unsupported_parameter"


async def test_the_kinds_are_those_of_the_clients():
    assert {"image_url", "input_audio", "file"} <= CHAT
    assert {"input_image", "input_file"} <= PARTS
    assert {"image_generation_call", "computer_call_output", "item_reference"} <= ITEMS
    assert {"image", "document"} <= BLOCKS
