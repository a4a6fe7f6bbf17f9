"""/v1/files and /v1/batches: requests in a file, answered in the background."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import openai
import pytest

from falcon_mamba_app.api.batches import endpoints, record
from falcon_mamba_app.api.routes import create_api, go_on_with_batches, let_responses_end
from falcon_mamba_app.errors import EngineFailure, Overloaded
from falcon_mamba_app.keeping import Keeping
from falcon_mamba_app.protocol import BACKGROUND_WEIGHT
from falcon_mamba_app.settings import Settings
from falcon_mamba_app.settings.keeping import LibrarySettings
from tests.support.api_fixtures import bounded, in_process, on_loopback, until
from tests.support.echo_service import EchoService

CHAT = "/v1/chat/completions"


def line(custom_id, content="hello", url=CHAT, **fields):
    body = {"messages": [{"role": "user", "content": content}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(*lines):
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines).encode()


@pytest.fixture
async def http(service):
    app = create_api(service)
    async with in_process(app) as http:
        yield http
    await let_responses_end(app)


async def uploaded(http, data, **fields):
    given = {"purpose": "batch", **fields}
    answer = await http.post("/v1/files", data=given, files={"file": ("in.jsonl", data)})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def begun(http, *lines, endpoint=CHAT, **fields):
    file_id = await uploaded(http, jsonl(*lines))
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **fields}
    answer = await http.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def once(http, batch, is_so):
    """The batch as it is told as soon as `is_so`. Between two looks the loop rests: one that never
    rests keeps the interpreter from the threads that read the batch's lines.
    """
    end_s = time.monotonic() + 60
    while True:
        told = (await http.get(f"/v1/batches/{batch['id']}")).json()
        if is_so(told):
            return told
        assert time.monotonic() < end_s, told
        await asyncio.sleep(0.005)


async def ended(http, batch):
    over = ("completed", "failed", "cancelled", "expired")
    return await once(http, batch, lambda told: told["status"] in over)


async def begins_to_answer(http, batch):
    return await once(http, batch, lambda told: told["request_counts"]["completed"])


async def results(http, file_id):
    text = (await http.get(f"/v1/files/{file_id}/content")).text
    return {one["custom_id"]: one for one in map(json.loads, text.splitlines())}


async def test_the_official_client_runs_a_batch_from_file_to_results(service):
    async with on_loopback(bounded(create_api(service))) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        data = jsonl(line("a", "one"), "", line("b", "two", n=2), line("c", temperature=99))
        file = await client.files.create(file=("in.jsonl", data), purpose="batch")
        assert (file.filename, file.bytes, file.purpose) == ("in.jsonl", len(data), "batch")
        assert [one.id async for one in client.files.list()] == [file.id]
        assert (await client.files.content(file.id)).content == data
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            metadata={"for": "a test"},
        )
        async with asyncio.timeout(60):
            while batch.status not in ("completed", "failed"):
                await asyncio.sleep(0.005)
                batch = await client.batches.retrieve(batch.id)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (3, 2, 1), batch.errors
        assert batch.metadata == {"for": "a test"} and batch.completed_at >= batch.created_at
        text = (await client.files.content(batch.output_file_id)).text
        answers = {one["custom_id"]: one for one in map(json.loads, text.splitlines())}
        assert answers.keys() == {"a", "b"}
        body = answers["a"]["response"]["body"]
        assert body["choices"][0]["message"]["content"] == "You said: one"
        assert len(answers["b"]["response"]["body"]["choices"]) == 2
        text = (await client.files.content(batch.error_file_id)).text
        (wrong,) = map(json.loads, text.splitlines())
        assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("c", 400)
        assert wrong["response"]["body"]["error"]["param"] == "temperature"
        assert [one.id async for one in client.batches.list()] == [batch.id]
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError, match="there is no file"):
            await client.files.retrieve(file.id)
        await client.close()


async def test_requests_of_a_batch_stand_behind_everybodys(http, service):
    batch = await begun(http, line("a"), line("b"))
    await ended(http, batch)
    await http.post(CHAT, json=line("c")["body"])
    *of_batch, of_person = service.requests
    assert {request.weight for request in of_batch} == {BACKGROUND_WEIGHT}
    assert of_person.weight == 1 and of_person.owner not in {r.owner for r in of_batch}


async def test_half_of_the_places_stays_free_for_people(http, service):
    generate, running = service.generate, []

    async def counted(request):
        async for event in generate(request):
            running.append(service.running)
            yield event

    service.generate = counted
    lines = [line(str(i), "SLOW " * 3) for i in range(5)]
    await ended(http, await begun(http, *lines))
    assert max(running) == service.stats().max_running // 2 == 2


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ((), "empty_file"),
        (("{",), "invalid_json_line"),
        (("[1]",), "invalid_json_line"),
        ((line("a"), line("a")), "duplicate_custom_id"),
        ((line(""),), "invalid_custom_id"),
        (({**line("a"), "method": "GET"},), "invalid_method"),
        ((line("a", url="/v1/embeddings"),), "mismatched_url"),
        (({**line("a"), "body": "x"},), "invalid_body"),
        ((line("a", stream=True),), "invalid_body"),
        (({**line("a"), "more": 1},), "unknown_field"),
    ],
)
async def test_a_file_with_a_wrong_line_fails_as_a_whole_and_says_where(http, service, given, code):
    told = await ended(http, await begun(http, *given))
    assert told["status"] == "failed" and not service.requests
    error = told["errors"]["data"][0]
    assert error["code"] == code and error["message"]
    assert error["line"] == (None if not given else len(given))


async def test_a_cancelled_batch_keeps_what_has_been_answered(http, service):
    batch = await begun(http, line("a"), *(line(str(i), "SLOW LONG") for i in range(4)))
    await begins_to_answer(http, batch)
    told = (await http.post(f"/v1/batches/{batch['id']}/cancel")).json()
    assert told["status"] == "cancelled" and told["cancelled_at"]
    assert (await results(http, told["output_file_id"])).keys() == {"a"}
    await until(lambda: service.running == 0)
    again = await http.post(f"/v1/batches/{batch['id']}/cancel")
    assert again.status_code == 409 and "nothing to cancel" in again.json()["error"]["message"]


async def test_a_full_server_is_asked_again_later(http, service):
    generate, refused = service.generate, []

    def busy_once(request):
        if not refused:
            refused.append(True)
            error = Overloaded("try again")
            error.retry_after_s = 0
            raise error
        return generate(request)

    service.generate = busy_once
    told = await ended(http, await begun(http, line("a")))
    assert refused and told["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


@pytest.fixture
async def kept(tmp_path):
    """Makes applications whose files are on a disk, each as if after a restart."""
    made = []

    async def make(service):
        folder = LibrarySettings(data_dir=str(tmp_path), keep_conversations="on")
        keeping = await Keeping.open(replace(Settings(), library=folder))
        app = create_api(service, keeping=keeping)
        made.append((app, keeping))
        return app

    yield make
    for app, keeping in made:
        await let_responses_end(app)
        await keeping.close()


async def test_after_a_restart_a_batch_goes_on_with_what_has_no_answer_yet(kept, caplog):
    caplog.set_level("WARNING")
    first = EchoService()
    await first.start()
    async with in_process(await kept(first), headers={"host": "localhost"}) as http:
        batch = await begun(http, line("a"), line("b"), line("c", "BREAK a b c"), line("d"))
        await until(lambda: "waits for the next start" in caplog.text)
        num_answered = (await begins_to_answer(http, batch))["request_counts"]["completed"]
    second = EchoService()
    await second.start()
    second.generate = with_breaks_mended(second)
    app = await kept(second)
    go_on_with_batches(app)
    async with in_process(app, headers={"host": "localhost"}) as http:
        told = await ended(http, batch)
        assert told["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
        assert len(await results(http, told["output_file_id"])) == 4
        broken_again = 1
        assert len(second.requests) == 4 - num_answered + broken_again


def with_breaks_mended(service):
    generate = service.generate

    async def mended(request):
        try:
            async for event in generate(request):
                yield event
        except EngineFailure:
            word = request.prompt[-1].content.replace("BREAK", "MEND")
            prompt = type(request.prompt)([replace(request.prompt[-1], content=word)])
            async for event in generate(replace(request, prompt=prompt)):
                yield event

    return mended


async def test_a_crash_in_a_line_loses_that_line_only(kept, tmp_path):
    service = EchoService()
    await service.start()
    async with in_process(await kept(service), headers={"host": "localhost"}) as http:
        batch = await ended(http, await begun(http, line("a"), line("b")))
        path = tmp_path / "files" / f"{batch['output_file_id']}.data"
        first = path.read_bytes().splitlines()[0]
        path.write_bytes(first + b"\n" + first[:20])
        facts = tmp_path / "batches" / f"{batch['id']}.json"
        told = json.loads(facts.read_text())
        facts.write_text(json.dumps({**told, "status": "in_progress"}))
    app = await kept(service)
    go_on_with_batches(app)
    async with in_process(app, headers={"host": "localhost"}) as http:
        told = await ended(http, batch)
        assert told["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        text = (await http.get(f"/v1/files/{told['output_file_id']}/content")).text
        whole = [one for one in text.splitlines() if one.endswith("}")]
        assert {json.loads(one)["custom_id"] for one in whole} == {"a", "b"}
    assert len(service.requests) == 3


async def test_after_a_day_what_has_no_answer_is_told_as_expired(http, monkeypatch):
    monkeypatch.setattr(record, "WINDOW_S", -1)
    told = await ended(http, await begun(http, line("a")))
    assert told["status"] == "expired" and told["request_counts"]["failed"] == 1
    error = (await results(http, told["error_file_id"]))["a"]
    assert error["response"] is None and error["error"]["code"] == "batch_expired"


async def test_others_see_neither_files_nor_batches_of_a_caller(service):
    app = create_api(service, api_keys=("one", "two"))
    mine, theirs = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    async with in_process(app, headers=mine) as http:
        batch = await begun(http, line("a"))
        await ended(http, batch)
        for path in ("files", "batches"):
            listed = (await http.get(f"/v1/{path}", headers=theirs)).json()
            assert listed["data"] == [] and not listed["has_more"]
        for path in (f"files/{batch['input_file_id']}", f"batches/{batch['id']}"):
            assert (await http.get(f"/v1/{path}", headers=theirs)).status_code == 404
        body = {**batch, "completion_window": "24h"}
        fields = {n: body[n] for n in ("input_file_id", "endpoint", "completion_window")}
        refused = await http.post("/v1/batches", json=fields, headers=theirs)
        assert refused.status_code == 404
    await let_responses_end(app)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_batch_that_cannot_be_is_refused_by_the_fields_name(http, fields, param):
    file_id = await uploaded(http, jsonl(line("a")))
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **fields}
    error = (await http.post("/v1/batches", json=body)).json()["error"]
    assert error["param"] == param and error["message"]


@pytest.mark.parametrize(
    ("request_fields", "status", "says"),
    [
        ({"json": {}}, 415, "multipart/form-data"),
        ({"files": {"other": b"x"}}, 400, "file is missing"),
        ({"files": {"file": b"x"}}, 400, "purpose is null"),
        ({"files": {"file": b"x"}, "data": {"purpose": "assistants"}}, 400, "allowed is batch"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the form cannot be read",
        ),
        (
            {
                "files": {"file": b"x"},
                "data": {"purpose": "batch", "expires_after[seconds]": "5"},
            },
            400,
            "expires_after[seconds] is",
        ),
    ],
)
async def test_what_is_no_file_is_refused_in_a_sentence(http, request_fields, status, says):
    answer = await http.post("/v1/files", **request_fields)
    assert answer.status_code == status and says in answer.json()["error"]["message"]


FORM = {"content-type": "multipart/form-data; boundary=a"}
PART = b'--a\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx\r\n'


@pytest.mark.parametrize("path", ["/v1/files", "/v1/books"])
@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"x", {"content-type": "multipart/form-data"}),
        (b"x", FORM),
        (b"".join(PART % (b"field%d" % n) for n in range(9)) + b"--a--\r\n", FORM),
        (2 * (PART % b'file"; filename="a') + b"--a--\r\n", FORM),
        (PART.replace(b"x", b"x" * 2**21) % b"name" + b"--a--\r\n", FORM),
    ],
    ids=["no boundary", "another boundary", "many fields", "two files", "a long field"],
)
async def test_a_form_that_cannot_be_read_costs_a_sentence(http, path, content, headers):
    answer = await http.post(path, content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the form cannot be read: ")


async def test_a_list_is_told_in_pages_either_way(http):
    ids = [await uploaded(http, b"x") for _ in range(5)]
    newest_first = [one["id"] for one in (await http.get("/v1/files")).json()["data"]]
    assert sorted(newest_first) == sorted(ids)
    page = (await http.get("/v1/files?limit=2")).json()
    assert page["has_more"] and [one["id"] for one in page["data"]] == newest_first[:2]
    rest = (await http.get(f"/v1/files?after={page['last_id']}")).json()
    assert [one["id"] for one in rest["data"]] == newest_first[2:] and not rest["has_more"]
    oldest = (await http.get("/v1/files?order=asc")).json()["data"]
    assert [one["id"] for one in oldest] == newest_first[::-1]
    for query in ("limit=0", "limit=x", "order=up", "after=file-x"):
        assert (await http.get(f"/v1/files?{query}")).status_code == 400


async def test_batches_and_their_files_are_bounded(http, monkeypatch):
    monkeypatch.setattr(endpoints, "MAX_UNFINISHED", 1)
    batch = await begun(http, line("a", "SLOW LONG"))
    held = await http.delete(f"/v1/files/{batch['input_file_id']}")
    assert held.status_code == 409 and "not over" in held.json()["error"]["message"]
    body = {n: batch[n] for n in ("input_file_id", "endpoint", "completion_window")}
    refused = await http.post("/v1/batches", json=body)
    assert refused.status_code == 429 and refused.headers["retry-after"]
    await http.post(f"/v1/batches/{batch['id']}/cancel")
