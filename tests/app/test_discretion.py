"""No word of a visitor and no secret is printed or logged, whatever goes wrong.

The server runs as the process that app.py starts, so all that any library prints is seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from falcon_mamba_app.logs import DiscreetFormatter, LoopErrors
from falcon_mamba_app.settings import load_settings
from tests.app.test_app import ROOT, wait_until_ready
from tests.support.api_fixtures import USER, in_process
from tests.support.echo_service import EchoService
from tests.support.web_fixtures import Page, visiting, whole_app
from tests.ui.test_page import CONTROLS

WORD = "Quetzalcoatl"  # in every prompt, key, name and path that the tests send
PASSWORD = f"{WORD}-the-password"


def visit(address: str) -> int:
    """Everything a visitor can do, right and wrong; how many requests were refused or failed."""
    asks = [
        ("GET", f"/v1/models/{WORD}", {}),
        ("GET", f"/v1/models?key={WORD}", {}),
        ("GET", f"/{WORD}?{WORD}={WORD}", {}),
        ("GET", f"/v1/sessions/{WORD}/state", {}),
        ("PUT", f"/v1/sessions/{WORD}/state", {"content": WORD.encode() * 10}),
        ("DELETE", f"/v1/sessions/{WORD}", {}),
        ("POST", "/v1/chat/completions", {"content": f"{{{WORD}"}),
        ("POST", "/v1/chat/completions", {"json": {WORD: WORD}}),
        ("POST", "/v1/chat/completions", {"json": {"messages": [{"role": WORD, "content": "a"}]}}),
        ("POST", "/v1/chat/completions", {"json": {"messages": WORD, "model": WORD}}),
        ("POST", "/v1/completions", {"json": {"prompt": [WORD, 5]}}),
        ("POST", "/v1/completions", {"json": {"prompt": WORD, "stop": [""], "seed": WORD}}),
        ("POST", "/v1/completions", {"json": {"prompt": f"{WORD}\ud800"}}),
        ("POST", "/login", {"data": {"username": WORD, "password": WORD}}),
        ("POST", "/gradio_api/run/predict", {"json": {"data": [WORD], "fn_index": 99}}),
        ("POST", "/gradio_api/run/predict", {"json": {"data": [WORD], "fn_index": WORD}}),
        ("POST", f"/gradio_api/call/{WORD}", {"json": {"data": [WORD]}}),
        ("POST", f"/gradio_api/call/v2/{WORD}", {"json": {WORD: WORD}}),
        ("POST", "/gradio_api/queue/join", {"content": f'{{"data": {WORD}'}),
        ("GET", f"/gradio_api/queue/data?session_hash={WORD}", {}),
        ("POST", "/gradio_api/cancel", {"json": {"session_hash": WORD, "fn_index": 0}}),
        ("GET", f"/assets/{WORD}", {}),
        ("GET", f"/static/{WORD}", {}),
        (WORD.upper(), "/v1/models", {}),
    ]
    num_failed = 0
    for headers in ({"Authorization": f"Bearer {WORD}"}, {"Authorization": f"Bearer u:{PASSWORD}"}):
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            client.post("/login", data={"username": "u", "password": PASSWORD})
            for method, path, options in asks:
                try:
                    num_failed += not client.request(method, path, **options).is_success
                except (httpx.HTTPError, ValueError):
                    num_failed += 1
    return num_failed


async def talk(address: str) -> str:
    """A conversation over each door, and events with values that no page sends."""
    headers = {"Authorization": f"Bearer u:{PASSWORD}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        await client.post("/login", data={"username": "u", "password": PASSWORD})
        messages = [{"role": "user", "content": f"Say {WORD}"}]
        body = {"messages": messages, "max_tokens": 8, "prompt_cache_key": WORD, "user": WORD}
        answer = await client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        page = Page(client, (await client.get("/config")).json(), WORD)
        told = await page.cause("page", "load", {"id": WORD, "messages": [[WORD]]}, WORD, WORD)
        told += await page.cause("composer", "submit", f"Say {WORD}", *CONTROLS)
        for spoilt in (WORD, None, {WORD: WORD}):
            told += await page.cause("composer", "submit", WORD, *[spoilt] * len(CONTROLS))
        await page.begin("composer", "submit", WORD)  # and too few
        return told


@pytest.mark.slow
def test_nothing_a_visitor_sends_is_printed(tmp_path):
    """At the level that prints all that the others do, and more."""
    printed = tmp_path / "printed"
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "FALCON_MAMBA_AUTH": f"u:{PASSWORD}",
        "FALCON_MAMBA_SESSION_SECRET": f"{WORD}-and-more",
        "FALCON_MAMBA_WRONG_KEYS_PER_MINUTE": "1000",
    }
    command = [sys.executable, "app.py", "--port", "0", "--model", "nano", "--device", "cpu"]
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--log-level", "debug"], cwd=ROOT, stdout=out, stderr=out, env=environment
        )
        try:
            address = _address(printed, process)
            wait_until_ready(address)
            assert visit(address) > 30  # the wrong ones were wrong
            assert "process_completed" in asyncio.run(talk(address))
            command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        finally:
            process.terminate()
            process.wait()
    text = printed.read_text()
    assert "ready to answer" in text
    assert WORD.lower() not in text.lower()
    assert PASSWORD.encode() not in command_line


def _address(printed: Path, process: subprocess.Popen[bytes]) -> str:
    while "http://" not in printed.read_text():
        assert process.poll() is None, printed.read_text()
    return next(line for line in printed.read_text().splitlines() if "http://" in line).split()[-1]


class CarelessService(EchoService):
    """Fails with the user's words in its mouth."""

    async def generate(self, request):
        raise LookupError(f"cannot find {request.prompt}")
        yield


async def test_an_error_that_quotes_the_user_is_logged_by_its_place_alone(caplog, capfd):
    service = CarelessService()
    await service.start()
    with caplog.at_level("DEBUG"):
        async with in_process(whole_app(service=service)) as client:
            body = {"messages": [{"role": "user", "content": WORD}]}
            answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 500
    assert WORD not in answer.text
    printed = "".join(capfd.readouterr())
    assert "unexpected LookupError" in caplog.text
    assert WORD not in _ours(caplog) + printed


async def test_a_route_that_fails_answers_plainly(caplog):
    app = whole_app()

    @app.get("/health/broken")
    async def broken():
        raise ValueError(WORD)

    app.router.routes.insert(0, app.router.routes.pop())  # before the page
    async with in_process(app) as client:
        answer = await client.get("/health/broken")
    assert answer.status_code == 500
    assert "the server failed unexpectedly; its log says where" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unexpected ValueError" in caplog.text
    assert WORD not in _ours(caplog)


def test_the_hubs_client_sends_no_telemetry():
    code = (
        "import falcon_mamba_app.server; from huggingface_hub import constants;"
        " raise SystemExit(not constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    unset = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=unset, check=True)


def test_a_traceback_is_printed_without_the_message():
    try:
        try:
            raise KeyError(WORD)
        except KeyError as error:
            raise ValueError(f"no {WORD}") from error
    except ValueError:
        record = logging.LogRecord("any.library", 40, "f", 1, "it broke", (), sys.exc_info())
    text = DiscreetFormatter("%(message)s").format(record)
    assert "it broke" in text and "ValueError" in text and "test_discretion.py" in text
    assert WORD not in text.replace(f'"{WORD}"', "")


async def test_a_task_that_nobody_waited_for_is_told_by_its_place(caplog):
    error = ValueError(WORD)
    loop = asyncio.get_running_loop()
    LoopErrors()(loop, {"message": "Task exception was never retrieved", "exception": error})
    assert "Task exception was never retrieved (ValueError at" in caplog.text
    assert WORD not in caplog.text


async def test_the_loop_repeats_itself_once_a_minute(caplog):
    """Without files for connections it says so two thousand times a second."""
    now_s = 0.0
    tell, loop = LoopErrors(lambda: now_s), asyncio.get_running_loop()
    for now_s in (0.0, 1.0, 59.0, 61.0):
        for _ in range(100):
            tell(loop, {"message": "socket.accept() out of system resource"})
        tell(loop, {"message": f"something else at {now_s}"})
    assert caplog.text.count("socket.accept()") == 2
    assert caplog.text.count("something else") == 4


async def test_secrets_are_in_no_answer_and_no_representation():
    options = ["--auth", f"u:{PASSWORD}", "--api-key", f"{WORD}-key"]
    async with visiting(*options) as client:
        form = {"username": "u", "password": PASSWORD}
        answers = [await client.post("/login", data=form)]
        bearer = {"Authorization": f"Bearer {WORD}-key"}
        for path in ("/", "/config", "/gradio_api/info", "/v1/models", "/metrics", "/health"):
            answers.append(await client.get(path, headers=bearer))
        body = {"messages": [USER]}
        answers.append(await client.post("/v1/chat/completions", json=body, headers=bearer))
    assert all(answer.is_success or answer.status_code == 503 for answer in answers)
    for answer in answers:
        assert WORD not in answer.text
        assert WORD not in str(answer.headers)
    assert WORD not in repr(load_settings(options, {}))


def _ours(caplog: pytest.LogCaptureFixture) -> str:
    """What would be printed: caplog's own formatter keeps messages of exceptions."""
    formatter = DiscreetFormatter("%(message)s")
    return "\n".join(formatter.format(record) for record in caplog.records)
