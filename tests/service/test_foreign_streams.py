"""Replies of servers that stretch OpenAI's API: what its official client keeps, is kept here.

Every shape has been met at some server or proxy. Each is read twice, by this app and by the
official client, from the same bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from falcon_mamba_app.errors import BackendError, FalconMambaError, InvalidRequest
from falcon_mamba_app.protocol import (
    Conversation,
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    TextDelta,
)
from falcon_mamba_app.service.remote import service as remote_service
from falcon_mamba_app.service.remote.service import RemoteService
from falcon_mamba_app.service.remote.shapes import WholeCharacters

REQUEST = GenerationRequest(prompt=Conversation([Message("user", "hi")]))
MODELS = {"data": [{"id": "m", "object": "model"}]}
UNSET = object()


def chunk(content: object = UNSET, reason: object = None, **more: object) -> dict:
    delta = {"role": "assistant"} if content is UNSET else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason} | more
    return {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def sse(*values: object, end: str = "\n\n", field: str = "data: ", done: bool = True) -> str:
    datas = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return "".join(f"{field}{data}{end}" for data in [*datas, *(["[DONE]"] if done else [])])


FIRST, HELLO, WORLD, LAST = chunk(), chunk("Hello"), chunk(" world"), chunk("", "stop")
REPLY = (FIRST, HELLO, WORLD, LAST)
FINISHED_BY_NOBODY = sse(FIRST, HELLO, WORLD, done=False)
EMPTY_CHOICES = {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
PRETTY = "\n".join("data: " + line for line in json.dumps(WORLD, indent=1).splitlines()) + "\n\n"

# Both clients read these alike.
SHAPES = {
    "plain": sse(*REPLY),
    "no reason at all": sse(FIRST, HELLO, WORLD),
    "no end and no reason": FINISHED_BY_NOBODY,
    "no [DONE]": sse(*REPLY, done=False),
    "empty reasons": sse(chunk("Hello", ""), chunk(" world", ""), LAST),
    "an unknown reason": sse(HELLO, WORLD, chunk("", "eos_token")),
    "a reason that is a number": sse(HELLO, WORLD, chunk("", 2)),
    "a reason for tools": sse(HELLO, WORLD, chunk("", "tool_calls")),
    "two reasons": sse(*REPLY, LAST),
    "text after the reason": sse(chunk("Hello", "stop"), WORLD),
    "reason beside the last text": sse(HELLO, chunk(" world", "stop")),
    "content null": sse(chunk(None), HELLO, WORLD, chunk(None, "stop")),
    "no delta at the end": sse(HELLO, WORLD, chunk("", "stop", delta=None)),
    "choices empty at first": sse(EMPTY_CHOICES, *REPLY),
    "choices null": sse(HELLO, {"id": "x", "choices": None}, WORLD, LAST),
    "usage with floats": sse(*REPLY[:3], LAST | {"usage": {"prompt_tokens": 3.0}}),
    "usage odd": sse(*REPLY, {"choices": [], "usage": {"prompt_tokens": "many"}}),
    "usage a string": sse(*REPLY, {"choices": [], "usage": "free"}),
    "logprobs odd": sse(FIRST, chunk("Hello", logprobs={"content": [{"x": 1}]}), WORLD, LAST),
    "logprobs empty": sse(FIRST, chunk("Hello", logprobs={}), WORLD, LAST),
    "reasoning beside": sse(FIRST, chunk("", delta={"reasoning_content": "hm"}), *REPLY[1:]),
    "error null": sse(*REPLY[:3], LAST | {"error": None}),
    "CRLF": sse(*REPLY, end="\r\n\r\n"),
    "CR": sse(*REPLY, end="\r\r"),
    "no space": sse(*REPLY, field="data:"),
    "comments and other fields": ": hello\n\nid: 1\nretry: 100\n" + sse(*REPLY),
    "named events": sse(*REPLY, field="event: message\ndata: "),
    "data over lines": sse(FIRST, HELLO, done=False) + PRETTY + sse(LAST),
}
# Here the official client raises or keeps nothing, and this app keeps the text all the same.
KEPT_HERE = {
    "a byte-order mark": "\ufeff" + sse(*REPLY),
    "data null": sse(FIRST, "null", HELLO, "[]", "7", WORLD, LAST),
    "empty data": "data: \n\ndata:\n\n" + sse(*REPLY),
    "no blank lines": sse(*REPLY, end="\n"),
    "text of the other endpoint": sse({"choices": [{"text": "Hello world"}]}, LAST),
    "message in place of delta": sse({"choices": [{"message": {"content": "Hello world"}}]}),
    "content in parts": sse(chunk([{"type": "text", "text": "Hello"}, " world"]), LAST),
    "no delta": sse(HELLO, WORLD, {"choices": [{"index": 0, "finish_reason": None}]}, LAST),
    "a choice that is none": sse(HELLO, {"choices": [None]}, WORLD, {"choices": {}}, LAST),
    "nonsense after the reason": sse(*REPLY, "{broken", done=False),
    "an error after the reason": sse(*REPLY, {"error": "gone"}, done=False),
}
WHOLE = {"choices": [{"index": 0, "message": {"content": "Hello world"}, "finish_reason": "stop"}]}


def answering(answer: httpx.Response | str | bytes) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, content=answer, headers={"content-type": "text/event-stream"})

    return httpx.MockTransport(handle)


async def started(transport: httpx.AsyncBaseTransport) -> RemoteService:
    service = RemoteService("http://host/v1", transport=transport)
    await service.start()
    return service


async def reply(
    answer: httpx.Response | str | bytes, request: GenerationRequest = REQUEST
) -> tuple[str, Finished]:
    service = await started(answering(answer))
    events = [event async for event in service.generate(request)]
    assert isinstance(events[-1], Finished)
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events[-1]


async def official_text(answer: str) -> str:
    caller = httpx.AsyncClient(transport=answering(answer))
    client = openai.AsyncOpenAI(base_url="http://host/v1", api_key="k", http_client=caller)
    asked = client.chat.completions.create(model="m", messages=[], stream=True)
    pieces = [
        choice.delta.content or ""
        async for piece in await asked
        for choice in piece.choices or ()
        if choice.delta
    ]
    return "".join(pieces)


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_the_official_client_keeps_is_kept(shape):
    answer = SHAPES[shape]
    text, finished = await reply(answer)
    assert text == await official_text(answer) == "Hello world"
    assert finished.reason == "stop"


@pytest.mark.parametrize("shape", KEPT_HERE)
async def test_text_is_kept_beside_what_makes_no_sense(shape):
    text, finished = await reply(KEPT_HERE[shape])
    assert (text, finished.reason) == ("Hello world", "stop")


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("shape", ["CRLF", "CR", "data over lines"])
async def test_a_stream_reads_the_same_wherever_the_network_cuts_it(shape, cut):
    data = ("\ufeff" + SHAPES[shape].replace("world", "wörld 🙂")).encode()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(data), cut):
            yield data[start : start + cut]

    text, _ = await reply(httpx.Response(200, content=parts()))
    assert text == "Hello wörld 🙂"


@pytest.mark.parametrize(
    "body", [json.dumps(WHOLE), "\n " + json.dumps(WHOLE, indent=2), "\ufeff" + json.dumps(WHOLE)]
)
async def test_an_answer_sent_whole_although_a_stream_was_asked_for_is_a_reply(body):
    assert (await reply(body))[0] == "Hello world"


async def test_the_reason_of_a_limit_is_told_by_any_of_its_names():
    for name in ("length", "max_tokens", "MAX_TOKENS"):
        assert (await reply(sse(HELLO, chunk("", name))))[1].reason == "length"


async def test_an_empty_reply_that_was_finished_is_a_reply():
    for answer in (sse(FIRST, LAST, done=False), sse(FIRST), json.dumps(LAST)):
        assert (await reply(answer))[0] == ""


async def test_counts_come_through_in_any_number_and_never_fall_to_nothing():
    usage = {"prompt_tokens": 3.0, "completion_tokens": 2.0, "prompt_tokens_details": None}
    _, finished = await reply(sse(*REPLY, {"choices": [], "usage": usage}))
    assert (finished.prompt_tokens, finished.completion_tokens) == (3, 2)
    for odd in ({}, {"completion_tokens": 0}, {"completion_tokens": -1, "prompt_tokens": True}):
        _, finished = await reply(sse(*REPLY, {"choices": [], "usage": odd}))
        assert (finished.prompt_tokens, finished.completion_tokens) == (None, 2)


async def test_log_probabilities_that_are_no_numbers_are_left_out():
    request = GenerationRequest(prompt=REQUEST.prompt, sampling=SamplingParams(logprobs=0))
    for value in ("NaN", "Infinity", '"low"'):
        odd = '{"content": [{"token": "Hello", "logprob": ' + value + "}]}"
        piece = json.dumps(chunk("Hello", logprobs=0)).replace(
            '"logprobs": 0', f'"logprobs": {odd}'
        )
        service = await started(answering(sse(piece, WORLD, LAST)))
        events = [event async for event in service.generate(request)]
        assert [e.logprobs for e in events if isinstance(e, TextDelta)] == [(), ()]


def test_characters_cut_in_two_are_joined_and_halves_shown_as_unknown():
    characters = WholeCharacters()
    pieces = ["a\ud83d", "\ude42b", "\ud83d", "c", "\ude42", "d\ud83d"]
    assert [characters.feed(piece) for piece in pieces] == [
        "a",
        "🙂b",
        "",
        "\ufffdc",
        "\ufffd",
        "d",
    ]
    assert characters.flush() == "\ufffd"


@pytest.mark.parametrize(
    "answer",
    [
        sse(HELLO, {"error": {"message": "out of memory", "code": 500}}, done=False),
        sse(HELLO, {"error": "out of memory"}, done=False),
        sse(HELLO, done=False) + 'event: error\ndata: {"message": "out of memory"}\n\n',
        sse(HELLO, {"object": "error", "message": "out of memory"}, done=False),
    ],
)
async def test_an_error_before_the_end_is_raised_in_the_servers_words(answer):
    with pytest.raises(BackendError, match="out of memory"):
        await reply(answer)


async def test_a_connection_that_breaks_after_the_reason_ends_a_reply_and_before_it_an_error():
    async def breaking(*values: object) -> AsyncIterator[bytes]:
        yield sse(*values, done=False).encode()
        raise httpx.ReadError("reset")

    assert (await reply(httpx.Response(200, content=breaking(*REPLY))))[0] == "Hello world"
    with pytest.raises(BackendError, match="cannot be reached"):
        await reply(httpx.Response(200, content=breaking(HELLO)))


async def test_a_server_that_never_closes_after_the_reason_is_not_waited_for(monkeypatch):
    async def hanging() -> AsyncIterator[bytes]:
        yield sse(*REPLY, done=False).encode()
        await asyncio.Event().wait()

    monkeypatch.setattr(remote_service, "LAST_WORDS_PATIENCE_S", 0.01)
    assert (await reply(httpx.Response(200, content=hanging())))[0] == "Hello world"


class Picky:
    """Refuses bodies that hold any of `names`, with `refusal` of the first one."""

    def __init__(self, *names: str, refusal: str = "Unknown parameter: '{}'.", status: int = 400):
        self.names, self.refusal, self.status = names, refusal, status
        self.bodies: list[dict] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        body = json.loads(request.content)
        self.bodies.append(body)
        for name in self.names:
            if name in body:
                text = self.refusal.format(name)
                return httpx.Response(self.status, json={"error": {"message": text}})
        return httpx.Response(200, text=sse(*REPLY))


async def asked(server: Picky, request: GenerationRequest = REQUEST, times: int = 1) -> None:
    service = await started(httpx.MockTransport(server))
    for _ in range(times):
        events = [event async for event in service.generate(request)]
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Hello world"


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", ["stream_options", "presence_penalty", "top_p"])
async def test_a_field_nobody_asked_for_is_left_out_once_refused_and_not_sent_again(name, status):
    server = Picky(name, status=status)
    await asked(server, times=2)
    assert [name in body for body in server.bodies] == [True, False, False]
    assert "max_tokens" in server.bodies[-1]


async def test_several_refused_fields_are_left_out_one_by_one():
    server = Picky("stream_options", "frequency_penalty", "presence_penalty")
    await asked(server)
    assert len(server.bodies) == 4


async def test_a_refusal_that_names_nothing_leaves_out_all_that_nobody_asked_for():
    server = Picky("frequency_penalty", refusal="Extra inputs are not permitted")
    await asked(server)
    assert server.bodies[-1].keys() == {"model", "messages", "max_tokens", "stream"}


async def test_the_limit_is_sent_by_its_newer_name_where_a_server_says_so():
    server = Picky("max_tokens", refusal="'{}' is not supported; use 'max_completion_tokens'.")
    await asked(server, times=2)
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 512, 512]


@pytest.mark.parametrize(
    ("name", "sampling"),
    [("top_k", SamplingParams(top_k=5)), ("max_tokens", SamplingParams(max_new_tokens=9))],
)
async def test_what_somebody_asked_for_is_refused_and_never_left_out(name, sampling):
    server = Picky(name, refusal="{} is not what this server takes")
    service = await started(httpx.MockTransport(server))
    with pytest.raises(InvalidRequest, match=name):
        async for _ in service.generate(
            GenerationRequest(prompt=REQUEST.prompt, sampling=sampling)
        ):
            pass
    assert len(server.bodies) == 1


async def test_a_connection_that_was_just_closed_is_tried_again_once():
    attempts = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        attempts.append(request)
        if len(attempts) == 1:
            raise httpx.RemoteProtocolError("server disconnected")
        return httpx.Response(200, text=sse(*REPLY))

    service = await started(httpx.MockTransport(handle))
    assert isinstance([event async for event in service.generate(REQUEST)][-1], Finished)


ODD = [None, 0, 1.5, True, "x", "", [], {}, [None], {"x": None}, [[1]], "\ud800"]


@pytest.mark.parametrize("field", ["choices", "delta", "content", "text", "finish_reason", "usage"])
async def test_no_odd_value_raises_anything_but_our_own_errors(field):
    for value in ODD:
        if field in ("choices", "usage"):
            odd = HELLO | {field: value}
        elif field in ("delta", "finish_reason", "text"):
            odd = {"choices": [HELLO["choices"][0] | {field: value}]}
        else:
            odd = chunk(value)
        try:
            text, _ = await reply(sse(HELLO, odd, WORLD, LAST).encode(errors="surrogatepass"))
        except FalconMambaError as error:
            pytest.fail(f"{field} {value!r}: {error}")
        assert text.startswith("Hello") and text.endswith(" world")
