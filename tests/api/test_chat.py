"""/v1/chat/completions: shapes, streaming, sampling fields, several replies."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from falcon_mamba_app.api import generation
from falcon_mamba_app.protocol import Message, sampling_field_names
from tests.support.api_fixtures import USER, sse_values

URL = "/v1/chat/completions"


async def chat(client: httpx.AsyncClient, **fields: object) -> dict:
    response = await client.post(URL, json={"messages": [USER], **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def chunks(client: httpx.AsyncClient, **fields: object) -> list:
    response = await client.post(URL, json={"messages": [USER], "stream": True, **fields})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    values = sse_values(response.text)
    assert values[-1] == "[DONE]"
    return values[:-1]


def text_of(chunk_list: list, index: int = 0) -> str:
    choices = [c for chunk in chunk_list for c in chunk["choices"] if c["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def test_a_reply_has_the_shape_of_openai(client):
    answer = await chat(client, model="echo")
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "echo"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "You said: hello there", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 4,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_stream_opens_with_the_role_and_closes_with_the_reason(client):
    values = await chunks(client)
    assert {value["object"] for value in values} == {"chat.completion.chunk"}
    assert len({value["id"] for value in values}) == 1
    assert values[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert values[-1]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert text_of(values) == "You said: hello there"
    assert all("usage" not in value for value in values)


async def test_every_piece_of_text_is_one_chunk(client):
    values = await chunks(client)
    assert len(values) == 1 + 4 + 1


async def test_include_usage_adds_one_last_chunk_without_choices(client):
    values = await chunks(client, stream_options={"include_usage": True})
    assert [value["usage"] for value in values[:-1]] == [None] * (len(values) - 1)
    assert values[-1]["choices"] == []
    assert values[-1]["usage"]["total_tokens"] == 6


async def test_continuous_usage_without_usage_is_none_as_with_vllm(client):
    options = {"include_usage": False, "continuous_usage_stats": True}
    body = {"messages": [USER], "stream": True, "stream_options": options}
    values = sse_values((await client.post(URL, json=body)).text)
    assert all("usage" not in value for value in values[:-1])


async def test_continuous_usage_counts_up(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    values = await chunks(client, stream_options=options)
    counts = [value["usage"]["completion_tokens"] for value in values]
    assert counts == [1, 1, 2, 3, 4, 4, 4]
    assert values[0]["usage"]["prompt_tokens"] == 2


async def test_a_stream_has_no_comments_and_nothing_before_its_first_text(client):
    """Some clients read every line as JSON; some take the first chunk for the first token."""
    body = {"messages": [{"role": "user", "content": "QUEUE"}], "stream": True}
    lines = (await client.post(URL, json=body)).text.split("\n\n")
    assert all(line.startswith("data: ") for line in lines if line)
    completion = {"prompt": "QUEUE", "stream": True}
    text = (await client.post("/v1/completions", json=completion)).text
    assert [v["choices"][0]["text"] for v in sse_values(text)[:-1]] == ["and", " so", " on.", ""]


async def test_an_empty_reply_is_an_empty_text(client):
    silent = {"role": "user", "content": "SILENT"}
    assert (await chat(client, messages=[silent]))["choices"][0]["message"]["content"] == ""
    values = await chunks(client, messages=[silent])
    assert values[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [value["choices"][0]["finish_reason"] for value in values] == [None, "stop"]
    answer = (await client.post("/v1/completions", json={"prompt": "SILENT"})).json()
    assert answer["choices"][0]["text"] == ""


async def test_long_waiting_and_reading_are_told_in_comments(client, monkeypatch):
    monkeypatch.setattr(generation, "QUIET_S", 0.0)
    body = {"messages": [{"role": "user", "content": "QUEUE"}], "stream": True}
    lines = (await client.post(URL, json=body)).text.split("\n\n")
    assert lines[:2] == [": waiting 2", ": waiting 1"]
    assert ": prefill 1/1" in lines


async def test_sampling_fields_reach_the_service(client, service):
    given = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.25,
        "min_p": 0.125,
        "top_n_sigma": 1.5,
        "typical_p": 0.75,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.25,
        "repetition_penalty": 1.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "seed": 9,
        "ignore_eos": True,
        "skip_special_tokens": False,
    }
    await chat(client, **given, stop="STOP", max_tokens=3)
    sampling = service.requests[-1].sampling
    assert {name: getattr(sampling, name) for name in given} == given
    assert (sampling.stop, sampling.max_new_tokens) == (("STOP",), 3)
    others = "stop", "max_new_tokens", "logprobs", "min_tokens", "stop_token_ids", "logit_bias"
    assert {*given, *others} == {*sampling_field_names()}


async def test_values_for_the_template_reach_the_service(client, service):
    await chat(client, chat_template_kwargs={"enable_thinking": False, "style": ["a", 1]})
    prompt = service.requests[-1].prompt
    assert prompt.template_kwargs == {"enable_thinking": False, "style": ["a", 1]}
    await chat(client)
    assert service.requests[-1].prompt.template_kwargs == {}


async def test_fields_left_out_take_the_models_defaults(client, service):
    await chat(client)
    defaults = service.stats().model.default_sampling
    assert service.requests[-1].sampling == defaults
    assert defaults.temperature == 0.4


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_length_limit_work(client, field):
    answer = await chat(client, **{field: 2})
    assert answer["choices"][0]["message"]["content"] == "You said:"
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stop", ["there", ["nothing", "there"]])
async def test_a_stop_string_ends_the_reply_before_it(client, stop):
    answer = await chat(client, stop=stop)
    assert answer["choices"][0]["message"]["content"] == "You said: hello"
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_parts_and_developer_messages_become_plain_messages(client, service):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    await chat(client, messages=messages)
    expected = (Message("system", "be brief"), Message("user", "one\ntwo"))
    assert service.requests[-1].prompt == expected


async def test_an_answer_can_be_sent_back_as_the_client_received_it(client, service):
    message = (await chat(client))["choices"][0]["message"]
    sent = {**message, "annotations": [], "audio": None, "tool_calls": None, "function_call": None}
    await chat(client, messages=[USER, sent, USER])
    assert service.requests[-1].prompt[1] == Message("assistant", "You said: hello there")


async def test_harmless_fields_change_nothing(client, service):
    await chat(client)
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "service_tier": "auto",
        "store": True,
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "logit_bias": {},
        "stop": None,
        "seed": None,
    }
    await chat(client, **harmless)
    assert service.requests[0] == service.requests[1]


NOTHING = {
    "n": None,
    "model": None,
    "stop": [""],
    "top_k": -1,
    "top_logprobs": 0,
    "logprobs": False,
    "stream": False,
    "stream_options": {"include_usage": False, "anything": None},
    "max_tokens": -1,
    "prompt_cache_key": "",
    "min_tokens": 0,
    "stop_token_ids": [],
    "skip_special_tokens": True,
    "chat_template_kwargs": {},
    "continue_final_message": False,
    "add_generation_prompt": True,
    "cache_prompt": True,
    "repeat_penalty": 1,
    "verbosity": "medium",
    "service_tier": "flex",
    "store": True,
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit"},
    "prediction": {"type": "content", "content": "x"},
    "response_format": {"type": "text"},
    "mirostat": 0,
    "dry_multiplier": 0.0,
    "something_new": False,
    "something_else": "",
    "and_more": [],
    "or_less": {},
}


@pytest.mark.parametrize("field", NOTHING)
async def test_a_value_that_asks_for_nothing_passes_for_every_field(client, service, field):
    await chat(client, **{field: NOTHING[field]})
    await chat(client, **{field: None})


@pytest.mark.parametrize("field", ["guided_json", "stop_token_ids", "anything", *NOTHING])
@pytest.mark.parametrize("url", [URL, "/v1/completions"])
async def test_null_is_the_same_as_nothing_known_field_or_not(client, service, url, field):
    body = {"messages": [USER]} if url == URL else {"prompt": "a"}
    assert (await client.post(url, json={**body, field: None})).status_code == 200
    assert (await client.post(url, json=body)).status_code == 200
    assert service.requests[-1] == service.requests[-2]


async def test_neutral_values_mean_what_they_do_elsewhere(client, service):
    await chat(client, top_k=-1, top_p=0, max_tokens=-1, stop=["", "x"], repeat_penalty=1.5)
    sampling = service.requests[-1].sampling
    assert (sampling.top_k, sampling.temperature, sampling.top_p) == (0, 0.0, 1.0)
    assert (sampling.max_new_tokens, sampling.stop) == (1024, ("x",))
    assert sampling.repetition_penalty == 1.5


async def test_a_byte_order_mark_before_the_body_is_passed_over(client):
    body = b"\xef\xbb\xbf" + json.dumps({"messages": [USER]}).encode()
    headers = {"content-type": "application/json"}
    assert (await client.post(URL, content=body, headers=headers)).status_code == 200


async def test_tools_that_are_not_to_be_called_are_not_missed(client):
    await chat(client, tools=[{"type": "function"}], tool_choice="none")


async def test_what_clients_put_into_messages_beside_the_text_is_passed_over(client, service):
    part = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}, "more": None}
    messages = [
        {"role": "user", "name": "Ada", "content": ["a", part], "audio": None},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "annotations": [1]},
        {"role": "user", "content": "c", "tool_calls": [], "prefix": False},
    ]
    await chat(client, messages=messages)
    assert [m.content for m in service.requests[-1].prompt] == ["a\nb", "", "c"]


async def test_logprobs_come_with_bytes_and_alternatives(client):
    answer = await chat(client, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["You", " said:", " hello", " there"]
    assert content[0]["bytes"] == list(b"You")
    assert content[0]["logprob"] == -0.5
    assert [top["token"] for top in content[0]["top_logprobs"]] == ["alt0", "alt1"]


async def test_streamed_logprobs_join_to_those_sent_whole(client):
    asked = {"logprobs": True, "top_logprobs": 1}
    whole = await chat(client, **asked)
    values = await chunks(client, **asked)
    streamed = [c["choices"][0]["logprobs"] for c in values]
    joined = [entry for part in streamed if part for entry in part["content"]]
    assert joined == whole["choices"][0]["logprobs"]["content"]


async def test_n_replies_have_their_own_seeds_and_one_prompt_in_usage(client, service):
    answer = await chat(client, n=3, seed=2**63 - 1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    seeds = {request.sampling.seed for request in service.requests}
    assert seeds == {2**63 - 1, -(2**63), -(2**63) + 1}
    assert answer["usage"]["prompt_tokens"] == 2
    assert answer["usage"]["completion_tokens"] == 12


async def test_followers_restore_the_state_of_the_first_and_it_is_forgotten_after(client, service):
    await chat(client, n=3)
    sessions = {request.session_id for request in service.requests}
    assert len(sessions) == 1 and None not in sessions
    assert service.sessions == {}


async def test_the_first_of_n_replies_speaks_before_the_others_start(client):
    values = await chunks(client, n=2)
    openings = [i for i, v in enumerate(values) if "role" in v["choices"][0]["delta"]]
    texts = [i for i, v in enumerate(values) if v["choices"][0]["delta"].get("content")]
    assert values[openings[0]]["choices"][0]["index"] == 0
    assert openings[0] < texts[0] < openings[1]
    assert text_of(values, 0) == text_of(values, 1) == "You said: hello there"


async def test_several_streamed_replies_interleave(client):
    words = " ".join(["word"] * 30)
    values = await chunks(client, n=3, messages=[{"role": "user", "content": words}])
    indexes = [value["choices"][0]["index"] for value in values]
    assert indexes != sorted(indexes)


async def test_a_cache_key_carries_the_session_and_says_how_much_was_reused(client, service):
    first = await chat(client, prompt_cache_key="k")
    second = await chat(client, prompt_cache_key="k")
    assert service.requests[0].session_id == service.requests[1].session_id
    assert len(service.requests[0].session_id.partition(".")[2]) == 64
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 1


async def test_32_streams_at_once_all_arrive_whole(client):
    words = " ".join(f"w{i}" for i in range(50))
    messages = [{"role": "user", "content": words}]
    every = await asyncio.gather(*(chunks(client, messages=messages) for _ in range(32)))
    assert {text_of(values) for values in every} == {f"You said: {words}"}
