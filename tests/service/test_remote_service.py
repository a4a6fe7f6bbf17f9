"""RemoteService in front of servers that tell less than a copy of this app, or fail.

The contract test runs it in front of a copy; here the server is a transport that answers by hand.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import aclosing

import httpx
import pytest

from falcon_mamba_app.errors import (
    BackendError,
    EngineFailure,
    FalconMambaError,
    InvalidRequest,
    NotReady,
    NotSupported,
    Overloaded,
    PromptTooLong,
    SettingsError,
)
from falcon_mamba_app.protocol import (
    Accepted,
    Conversation,
    GenerationRequest,
    Message,
    SamplingParams,
    TextDelta,
)
from falcon_mamba_app.service.remote.service import RemoteService

KEY = "a-secret-key"
CHAT = GenerationRequest(prompt=Conversation([Message("user", "hello")]), session_id="s")
STRANGER = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "somebody"}]}
VLLM = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}


def chunk(text: str | None = None, *, reason: str | None = None, **more: object) -> dict:
    delta = {"role": "assistant", "content": ""} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def stream(*values: object, is_done: bool = True) -> httpx.Response:
    parts = [f"data: {json.dumps(value, ensure_ascii=False)}\n\n" for value in values]
    return httpx.Response(200, text="".join(parts) + "data: [DONE]\n\n" * is_done)


class Server:
    """Lists its models, and answers everything else with `answer`."""

    def __init__(self, answer: httpx.Response | None = None, *, models: object = STRANGER) -> None:
        self.answer = answer or stream(chunk(), chunk("a"), chunk(reason="stop"))
        self.models = models
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=self.models)
        return self.answer

    @property
    def body(self) -> dict:
        return json.loads(self.requests[-1].content)


def remote(answer: Callable[[httpx.Request], httpx.Response], **options: object) -> RemoteService:
    options = {"connect_patience_s": 0.05, "first_pause_s": 0.001, "api_key": KEY} | options
    return RemoteService("http://host/v1", transport=httpx.MockTransport(answer), **options)


async def started(server: Server, **options: object) -> RemoteService:
    service = remote(server, **options)
    await service.start()
    return service


async def events_of(service: RemoteService, request: GenerationRequest = CHAT) -> list:
    async with aclosing(service.generate(request)) as events:
        return [event async for event in events]


async def failure(server: Server, request: GenerationRequest = CHAT) -> FalconMambaError:
    service = await started(server)
    with pytest.raises(FalconMambaError) as raised:
        await events_of(service, request)
    assert service.stats().running == 0
    return raised.value


async def test_a_server_that_tells_no_counts_leaves_them_unknown():
    service = await started(Server(stream(chunk("a"), chunk("b"), chunk(reason="length"))))
    accepted, first, second, finished = await events_of(service)
    assert accepted == Accepted(None, None)
    assert (first, second) == (TextDelta("a", 1), TextDelta("b", 2))
    assert (finished.prompt_tokens, finished.reused_tokens) == (None, None)
    assert (finished.reason, finished.completion_tokens) == ("length", 2)
    stats = service.stats()
    assert (stats.prompt_tokens_total, stats.completion_tokens_total) == (None, 2)
    assert (stats.waiting, stats.max_running, stats.gpu_memory_bytes) == (None, None, None)


async def test_usage_at_the_end_corrects_the_counted_pieces():
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
    service = await started(Server(stream(chunk("two tokens"), chunk("", reason="stop"), usage)))
    finished = (await events_of(service))[-1]
    assert (finished.prompt_tokens, finished.completion_tokens) == (7, 5)
    assert service.stats().prompt_tokens_total == 7


async def test_vllm_tells_the_prompts_length_at_once():
    usage = {"prompt_tokens": 7, "completion_tokens": 0}
    answer = stream(chunk(usage=usage), chunk("a", reason="stop"))
    service = await started(Server(answer, models=VLLM))
    assert (await events_of(service))[0] == Accepted(7, None)
    assert service.stats().model.max_prompt_tokens == 4096


async def test_a_stranger_is_sent_nothing_it_may_not_know():
    server = Server()
    await events_of(await started(server))
    assert server.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 512,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_a_stranger_is_sent_extensions_that_matter():
    server = Server()
    sampling = SamplingParams(top_k=5, min_p=0.1, seed=3, stop=("x",), logprobs=2)
    await events_of(await started(server), GenerationRequest(prompt=CHAT.prompt, sampling=sampling))
    expected = {"top_k": 5, "min_p": 0.1, "seed": 3, "stop": ["x"], "top_logprobs": 2}
    assert expected.items() <= server.body.items()
    assert "repetition_penalty" not in server.body


async def test_vllm_is_sent_neutral_values_too_since_it_fills_gaps_from_the_checkpoint():
    server = Server(models=VLLM)
    await events_of(await started(server))
    assert (server.body["top_k"], server.body["repetition_penalty"]) == (0, 1.0)
    assert server.body["stream_options"]["continuous_usage_stats"]
    assert "prompt_cache_key" not in server.body


async def test_line_separators_inside_a_text_do_not_break_the_stream():
    text = "one\u2028two\x85three\u2029"
    service = await started(Server(stream(chunk(text, reason="stop"))))
    assert (await events_of(service))[1].text == text


async def test_a_strangers_logprobs_become_tokens_without_ids():
    top = [{"token": "x", "logprob": -0.1, "bytes": None}]
    content = [{"token": "é", "logprob": -1.0, "bytes": [195, 169], "top_logprobs": top}]
    piece = chunk("é", reason="stop")
    piece["choices"][0]["logprobs"] = {"content": content}
    request = GenerationRequest(prompt=CHAT.prompt, sampling=SamplingParams(logprobs=1))
    service = await started(Server(stream(piece)))
    (token,) = (await events_of(service, request))[1].logprobs
    assert (token.token_id, token.token_bytes, token.logprob) == (None, b"\xc3\xa9", -1.0)
    assert token.top[0].token_bytes == b"x"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"error": {"message": "top_k is -1", "param": "top_k"}}, InvalidRequest, "top_k is"),
        (400, {"object": "error", "message": "too odd"}, InvalidRequest, "too odd"),
        (422, {"detail": "x"}, InvalidRequest, "x"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "odd"}]}, InvalidRequest, "body.n: odd"),
        (422, [], InvalidRequest, "it answered 422"),
        (
            400,
            {"error": {"message": "long", "code": "context_length_exceeded"}},
            PromptTooLong,
            "long",
        ),
        (401, {"error": {"message": f"wrong key {KEY}"}}, BackendError, "--backend-api-key"),
        (403, "no", BackendError, "--backend-api-key"),
        (404, {"error": {"message": "no such model"}}, BackendError, "no such model"),
        (429, {"error": {"message": "slow down"}}, Overloaded, "slow down"),
        (503, None, Overloaded, "busy"),
        (503, {"error": {"message": "soon", "code": "not_ready"}}, NotReady, "soon"),
        (503, {"error": {"message": "dead", "code": "engine_failure"}}, EngineFailure, "dead"),
        (500, {"error": f"broke with {KEY}\nline two"}, BackendError, "broke"),
        (307, None, BackendError, "307"),
    ],
)
async def test_the_servers_errors_become_ours(status, body, kind, words):
    error = await failure(Server(httpx.Response(status, json=body)))
    assert type(error) is kind
    assert words in str(error) and "\n" not in str(error)
    assert KEY not in str(error)


async def test_the_field_at_fault_is_passed_on():
    body = {"error": {"message": "odd", "param": "seed"}}
    assert (await failure(Server(httpx.Response(400, json=body)))).param == "seed"


@pytest.mark.parametrize(
    "answer",
    [
        stream(is_done=False),
        stream(chunk(), is_done=False),
        stream({"choices": "none"}),
        stream([]),
        httpx.Response(200, text="data: {broken\n\n"),
        httpx.Response(200, text="data: " + "[" * 100_000 + "\n\n"),
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, content=b"data: \xff\xfe\n\n"),
    ],
)
async def test_an_answer_cut_short_or_without_sense_is_the_backends_error(answer):
    assert isinstance(await failure(Server(answer)), BackendError)


async def test_an_error_in_mid_stream_is_raised_after_what_came_before():
    answer = stream(chunk("a"), {"error": {"message": "device lost", "code": "engine_failure"}})
    service = await started(Server(answer))
    received = []
    with pytest.raises(EngineFailure, match="device lost"):
        async for event in service.generate(CHAT):
            received.append(event)
    assert received[1:] == [TextDelta("a", 1)]


async def test_start_waits_while_the_server_is_loading_or_not_up_yet():
    answers = [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, json=VLLM)]

    def answer(request: httpx.Request) -> httpx.Response:
        result = answers.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    service = remote(answer)
    assert service.stats().status == "loading"
    with pytest.raises(NotReady):
        await events_of(service)
    await service.start()
    assert (service.stats().status, service.stats().model.id) == ("ready", "m")


async def test_start_fails_in_one_sentence_when_nobody_answers():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    service = remote(refuse)
    with pytest.raises(BackendError, match="http://host/v1 cannot be reached"):
        await service.start()
    assert service.stats().status == "failed"
    assert "cannot be reached" in service.stats().detail


async def test_start_says_what_is_wrong_with_key_path_or_model():
    def answering(status: int) -> RemoteService:
        return remote(lambda request: httpx.Response(status))

    with pytest.raises(BackendError, match="--backend-api-key"):
        await answering(401).start()
    with pytest.raises(SettingsError, match="/v1"):
        await answering(404).start()
    with pytest.raises(BackendError, match="no model other; it has m"):
        await started(Server(), model="other")
    for nothing in ({"data": [5]}, {"data": []}, {"data": None}, []):
        with pytest.raises(BackendError, match="no model at all"):
            await started(Server(models=nothing))
    with pytest.raises(BackendError, match="nonsense"):
        await started(Server(models={"data": 5}))


async def test_the_address_shown_holds_no_password():
    service = RemoteService("http://anna:secret@host/v1")
    assert "secret" not in service.stats().detail
    assert "http://host/v1" in service.stats().detail
    await service.close()


async def test_the_key_is_not_in_the_log(caplog):
    with caplog.at_level(logging.DEBUG):
        await failure(Server(httpx.Response(500, json={"error": KEY})))
    assert KEY not in caplog.text


async def test_a_stranger_has_no_sessions():
    server = Server()
    service = await started(server)
    for action in (service.export_state("s"), service.import_state("s", b"")):
        with pytest.raises(NotSupported):
            await action
    with pytest.raises(NotSupported):
        await asyncio.wrap_future(service.forget("s"))
    await service.close()
    assert {request.method for request in server.requests} == {"GET"}


async def test_a_limit_of_our_own_is_held():
    service = await started(Server(), max_new_tokens=100)
    assert service.stats().model.max_new_tokens == 100
    with pytest.raises(InvalidRequest, match="100"):
        await events_of(service)


async def test_only_plain_prompts_can_be_scored():
    request = GenerationRequest(prompt=CHAT.prompt, score_prompt=1)
    assert isinstance(await failure(Server(), request), NotSupported)
