"""Which copy a request belongs to."""

from __future__ import annotations

import json

import pytest

from falcon_mamba_app.cluster.routing import MAX_BODY_BYTES, Asked, Head, Load, Routing


def asked(path="/v1/chat/completions", body=None, address="192.0.2.1", **headers):
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = Head.of("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return Asked.by(head, data, address)


@pytest.fixture
def routing():
    return Routing()


@pytest.fixture
def loads():
    return [Load("1"), Load("2"), Load("3")]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda n: asked(body={"prompt_cache_key": f"key {n}"}),
        lambda n: asked(x_session_id=f"key {n}"),
        lambda n: asked("/v1/responses", {"conversation": f"conv_{n}"}),
        lambda n: asked("/v1/responses", {"conversation": {"id": f"conv_{n}"}}),
        lambda n: asked(f"/v1/sessions/key-{n}/state"),
    ],
    ids=["body", "header", "conversation", "conversation's object", "path"],
)
def test_a_session_stays_with_its_copy_and_sessions_are_divided_evenly(routing, loads, request_of):
    first = [routing.choose(request_of(n), loads) for n in range(30)]
    assert first == [routing.choose(request_of(n), loads) for n in range(30)]
    assert {name: first.count(name) for name in "123"} == {"1": 10, "2": 10, "3": 10}


def test_a_session_of_a_dead_copy_goes_to_another_and_stays_there(routing, loads):
    request = asked(body={"prompt_cache_key": "a"})
    home = routing.choose(request, loads)
    left = [load for load in loads if load.name != home]
    new = routing.choose(request, left)
    assert new != home
    assert routing.choose(request, loads) == new


def test_an_answer_goes_on_where_its_id_was_made(routing, loads):
    for body in (
        {"previous_response_id": "resp_0a1b-2"},
        {"conversation": "conv_0a1b-2"},
        {"input_file_id": "file_0a1b-2"},
    ):
        assert routing.choose(asked("/v1/responses", body), loads) == "2"
    assert routing.choose(asked("/v1/responses/resp_0a1b-3/cancel"), loads) == "3"
    assert routing.choose(asked("/v1/files/file_0a1b-3/content"), loads) == "3"
    assert routing.choose(asked("/v1/batches/batch_0a1b-3/cancel"), loads) == "3"


def test_a_page_goes_where_its_cookie_says_and_without_one_where_its_visitor_is(routing, loads):
    page = asked("/gradio_api/queue/join", cookie="a=1; falcon_mamba_copy=3")
    assert routing.choose(page, loads) == "3"
    bare = {routing.choose(asked("/gradio_api/queue/join"), loads) for _ in range(5)}
    assert len(bare) == 1


def test_new_pages_are_divided(routing, loads):
    begun = [routing.choose(asked("/", accept="text/html"), loads) for _ in range(6)]
    assert sorted(begun) == ["1", "1", "2", "2", "3", "3"]


def test_a_visitor_without_sessions_keeps_a_copy_until_it_has_much_more_to_do(routing, loads):
    own = routing.choose(asked(), loads)
    assert {routing.choose(asked(), loads) for _ in range(5)} == {own}
    next(load for load in loads if load.name == own).num_api = 9
    assert routing.choose(asked(), loads) != own


def test_two_callers_with_one_key_are_two_sessions(routing, loads):
    body = {"prompt_cache_key": "default"}
    homes = [routing.choose(asked(body=body, authorization=f"Bearer {n}"), loads) for n in range(3)]
    assert sorted(homes) == ["1", "2", "3"]


def test_what_a_message_says_names_no_session():
    told = {"messages": [{"role": "user", "content": '{"prompt_cache_key": "x"}'}]}
    assert asked(body=told).session is None
    assert asked(body={**told, "prompt_cache_key": "x"}).session is not None


@pytest.mark.parametrize(
    ("head", "needed"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 500\r\n\r\n", 500),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n", MAX_BODY_BYTES),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\nx-session-id: a\r\n\r\n", 0),
        (b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 0),
        (b"POST /v1/messages HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n", 0),
        (b"POST /gradio_api/upload HTTP/1.1\r\ncontent-length: 500\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", 0),
        (b"nonsense\r\n\r\n", 0),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 0),
    ],
)
def test_a_body_is_read_only_where_it_may_name_the_session(head, needed):
    found = Head.of(head)
    assert found.num_needed == len(head) + needed
    Asked.by(found, b"", "::1")


def test_without_a_copy_there_is_no_choice(routing):
    assert routing.choose(asked(), []) is None
