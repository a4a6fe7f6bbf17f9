"""/v1/sessions: whatever the page can do with conversations, a program can do."""

from __future__ import annotations

import json

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.library.exchange import bundle, read
from tests.support.api_fixtures import USER, in_process

ANNA, TOM = ({"Authorization": f"Bearer key-of-{name}"} for name in ("anna", "tom"))
TALK = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.fixture
async def client(service):
    app = create_api(service, api_keys=("key-of-anna", "key-of-tom"))
    async with in_process(app, headers=ANNA) as client:
        yield client


async def made(client, **fields) -> dict:
    answer = await client.post("/v1/sessions", json={"title": "A talk", "messages": TALK, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_session_is_made_listed_found_changed_and_deleted(client):
    session = await made(client, folder="work", system_prompt="Be brief.")
    path = f"/v1/sessions/{session['id']}"
    assert [message["content"] for message in session["messages"]] == ["one", "two", "three"]
    assert session["head_id"] == session["messages"][-1]["id"]
    listed = (await client.get("/v1/sessions?folder=work")).json()["data"]
    assert [one["id"] for one in listed] == [session["id"]]
    found = (await client.get("/v1/sessions?q=three")).json()["data"]
    assert found[0]["found_in"] == session["head_id"]
    changed = await client.post(path, json={"title": "Another", "is_pinned": True})
    assert (changed.json()["title"], changed.json()["is_pinned"]) == ("Another", True)
    stale = await client.post(path, json={"title": "Late", "version": session["version"]})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "conflict")
    assert (await client.delete(path)).json()["deleted"]
    assert (await client.get(path)).status_code == 404


async def test_branches_are_named_and_sessions_forked(client):
    session = await made(client)
    path, second = f"/v1/sessions/{session['id']}", session["messages"][1]["id"]
    named = await client.put(f"{path}/branches/early", json={"message_id": second})
    assert named.json()["message_id"] == second
    await client.put(f"{path}/branches/late", json={})
    branches = (await client.get(path)).json()["branches"]
    assert branches == {"early": second, "late": session["head_id"]}
    await client.delete(f"{path}/branches/late")
    assert list((await client.get(path)).json()["branches"]) == ["early"]
    forked = (await client.post(f"{path}/fork", json={"message_id": second})).json()
    assert [message["content"] for message in forked["messages"]] == ["one", "two"]
    assert forked["id"] != session["id"]


async def test_a_deleted_message_takes_what_follows_it_along(client):
    session = await made(client)
    path, (first, second, _) = f"/v1/sessions/{session['id']}", session["messages"]
    left = (await client.delete(f"{path}/messages/{second['id']}")).json()
    assert ([one["id"] for one in left["messages"]], left["head_id"]) == (
        [first["id"]],
        first["id"],
    )
    other = await made(client)
    for wrong in (second["id"], other["messages"][0]["id"]):
        assert (await client.delete(f"{path}/messages/{wrong}")).status_code == 404
    assert len((await client.get(f"/v1/sessions/{other['id']}")).json()["messages"]) == 3


async def test_everything_of_a_caller_is_deleted_only_when_that_is_said(client):
    kept = [await made(client) for _ in range(3)]
    toms = await client.post("/v1/sessions", json={"title": "Tom's"}, headers=TOM)
    refused = await client.delete("/v1/sessions")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "everything")
    gone = (await client.delete("/v1/sessions?everything=true")).json()
    assert (gone["object"], gone["deleted"]) == ("everything", True)
    assert gone["num_deleted"]["conversations"] == 3
    assert (await client.get(f"/v1/sessions/{kept[0]['id']}")).status_code == 404
    path = f"/v1/sessions/{toms.json()['id']}"
    assert (await client.get(path, headers=TOM)).json()["title"] == "Tom's"


async def test_responses_go_on_from_a_session_and_from_any_reply_in_it(client, service):
    session = await made(client, system_prompt="Be brief.")
    reply = session["messages"][1]["id"]
    for fields in ({"conversation": session["id"]}, {"previous_response_id": reply}):
        answer = await client.post("/v1/responses", json={"input": "so", **fields})
        assert answer.status_code == 200, answer.text
    prompts = [[m.content for m in request.prompt] for request in service.requests]
    assert prompts == [
        ["Be brief.", "one", "two", "three", "so"],
        ["Be brief.", "one", "two", "so"],
    ]
    tree = (await client.get(f"/v1/sessions/{session['id']}?include=token_ids")).json()
    assert len(tree["messages"]) == 7 and "token_ids" in tree["messages"][0]
    moved = await client.post(f"/v1/sessions/{session['id']}", json={"head_id": reply})
    assert moved.json()["head_id"] == reply


async def test_a_sessions_state_goes_out_and_in_under_its_id(client):
    session = await made(client)
    await client.post("/v1/responses", json={"input": "so", "conversation": session["id"]})
    path = f"/v1/sessions/{session['id']}/state"
    state = await client.get(path)
    assert state.status_code == 200
    other = await made(client)
    answer = await client.put(f"/v1/sessions/{other['id']}/state", content=state.content)
    assert answer.json()["object"] == "session.state"


async def test_another_owners_session_is_as_if_it_had_never_been(client):
    session = await made(client)
    path = f"/v1/sessions/{session['id']}"
    for method, where, body in (
        ("GET", path, None),
        ("POST", path, {"title": "mine"}),
        ("POST", f"{path}/fork", {"message_id": session["head_id"]}),
        ("PUT", f"{path}/branches/x", {"message_id": session["head_id"]}),
        ("DELETE", f"{path}/branches/x", None),
        ("DELETE", f"{path}/messages/{session['head_id']}", None),
        ("DELETE", path, None),
        ("GET", f"{path}/state", None),
    ):
        answer = await client.request(method, where, json=body, headers=TOM)
        assert answer.status_code == 404, (method, where, answer.text)
    assert (await client.get("/v1/sessions", headers=TOM)).json()["data"] == []
    assert (await client.get(path)).json()["title"] == "A talk"


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/v1/sessions", {"titel": "x"}, "titel"),
        ("POST", "/v1/sessions", {"title": 5}, "title"),
        (
            "POST",
            "/v1/sessions",
            {"messages": [{"role": "robot", "content": ""}]},
            "messages[0].role",
        ),
        ("GET", "/v1/sessions?limit=0", None, "limit"),
        ("GET", "/v1/sessions?limit=000000050999", None, "limit"),
        ("GET", f"/v1/sessions?limit=1{'0' * 5_000}", None, "limit"),
        ("GET", f"/v1/sessions/a/state/inspect?turns=1{'0' * 5_000}", None, "turns"),
        ("GET", f"/v1/sessions?cursor=1:1.0:{2**63}", None, "cursor"),
        ("POST", "/v1/sessions/a", {"title": "x", "version": 2**63}, "version"),
        ("GET", "/v1/sessions?is_pinned=maybe", None, "is_pinned"),
    ],
)
async def test_what_is_wrong_is_named(client, method, path, body, param):
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_prompt_cache_key_is_a_session_too(client):
    body = {"messages": [USER], "prompt_cache_key": "talk"}
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await client.get("/v1/sessions/talk/state")).status_code == 200
    assert (await client.delete("/v1/sessions/talk")).json() == {
        "object": "session",
        "deleted": True,
    }


@pytest.mark.parametrize("kind", ["json", "jsonl", "markdown", "zip"])
async def test_a_session_goes_out_as_a_file_and_comes_in_again(client, kind):
    session = await made(client)
    file = await client.get(f"/v1/sessions/{session['id']}/export", params={"format": kind})
    assert file.status_code == 200 and "attachment" in file.headers["content-disposition"]
    if kind == "markdown":
        assert file.text.startswith("# A talk\n\n**You**\n\none")
        return
    (new,) = (await client.post("/v1/sessions/import", content=file.content)).json()["data"]
    assert new["id"] != session["id"]
    again = (await client.get(f"/v1/sessions/{new['id']}")).json()
    assert [message["content"] for message in again["messages"]] == ["one", "two", "three"]


async def test_a_state_of_another_model_in_a_zip_costs_a_sentence(client):
    session = await made(client)
    tree = read((await client.get(f"/v1/sessions/{session['id']}/export")).content)[0][0]
    file = bundle(tree, {"a": b"echo:7", "b": b"of another model"})
    answer = (await client.post("/v1/sessions/import", content=file)).json()
    assert (len(answer["data"]), answer["num_states"]) == (1, 1)
    assert answer["states_problem"] == "this file is no state of this model"


async def test_thousands_come_in_with_progress_and_a_file_that_is_none_is_refused_as_ever(client):
    talk = json.dumps({"messages": TALK})
    path = "/v1/sessions/import?stream=true"
    answer = await client.post(path, content="\n".join([talk] * 250))
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    *progress, whole = map(json.loads, events[:-1])
    assert events[-1] == "[DONE]" and len(whole["data"]) == 250
    assert [(one["num_done"], one["num_all"]) for one in progress] == [
        *((100, 250), (200, 250), (250, 250)),
    ]
    refused = await client.post(path, content=b"[" * 50_000)
    assert refused.status_code == 400 and "nested too deep" in refused.text


async def test_files_of_others_and_hostile_ones_are_refused(client):
    path = f"/v1/sessions/{(await made(client))['id']}/export"
    assert (await client.get(path, headers=TOM)).status_code == 404
    wrong = await client.get(path, params={"format": "pdf"})
    assert wrong.status_code == 400 and "allowed are json" in wrong.text
    refused = await client.post("/v1/sessions/import", content=b"[" * 50_000)
    assert refused.status_code == 400 and "nested too deep" in refused.text
