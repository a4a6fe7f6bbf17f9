"""The app as a process: it starts, answers, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
MAX_START_S = 500.0  # generous for a loaded machine; benchmarks/startup.py measures


def start(*options: str, **variables: str) -> tuple[subprocess.Popen[str], str]:
    """The app on a free port, and its address, as it printed it.

    It begins as a shell's background job does: with SIGINT ignored.
    """
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", "--model", "nano", "--device", "cpu", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            **variables,
        },
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "http://" in line:
            return process, line.split()[-1]
    raise AssertionError("the app never printed its address")


def wait_until_ready(address: str) -> None:
    deadline_s = time.monotonic() + MAX_START_S
    with httpx.Client(base_url=address, timeout=60) as http:
        while http.get("/health").status_code != 200:
            assert time.monotonic() < deadline_s, "the app never became ready"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def app():
    process, address = start()
    wait_until_ready(address)
    yield process, address
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_answers_over_the_api_and_serves_the_page(app):
    _, address = app
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["message"]["content"]
    assert "Falcon Mamba" in httpx.get(address).text


def test_the_api_is_not_shadowed_by_the_page(app):
    _, address = app
    assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "nano"
    assert httpx.get(f"{address}/v1/nothing").json()["error"]["message"]
    assert httpx.get(f"{address}/metrics").status_code == 200


def stop_in_mid_reply(process: subprocess.Popen[str], address: str, stop: signal.Signals) -> str:
    """What the app printed. Its reader gets a sentence, and it ends within seconds."""
    body = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{address}/v1/completions", json=body) as reply,
    ):
        lines = reply.iter_lines()
        next(lines)
        process.send_signal(stop)
        rest = list(lines)
    with process.stdout as output:  # `communicate` would lose what was read ahead with the address
        printed = output.read()
    assert "the server is stopping" in rest[-2]
    assert "Traceback" not in printed
    assert process.wait(timeout=60) == 130
    return printed


def test_without_a_public_link_it_goes_on_serving_and_ends_as_it_should(tmp_path):
    """No relay is reached: not Gradio's, and nobody listens at this one."""
    nowhere = {"GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9", "HF_HOME": str(tmp_path)}
    process, address = start("--share", **nowhere)
    wait_until_ready(address)
    assert "Falcon Mamba" in httpx.get(address).text
    printed = stop_in_mid_reply(process, address, signal.SIGTERM)
    assert "anyone who can reach this server may use the page and the API" in printed
    assert "Public link" not in printed


def test_sigterm_is_heard_before_the_server_listens():
    """As process 1 of a container, Python would otherwise ignore it for seconds."""
    process = subprocess.Popen([sys.executable, "app.py", "--model", "nano"], cwd=ROOT)
    catching = Path(f"/proc/{process.pid}/status")
    deadline_s = time.monotonic() + MAX_START_S
    sigterm = 1 << (signal.SIGTERM - 1)
    while not int(catching.read_text().partition("SigCgt:\t")[2].split()[0], 16) & sigterm:
        assert time.monotonic() < deadline_s
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130


def test_a_signal_that_comes_at_once_ends_it_as_later_ones_do(monkeypatch):
    """It was not caught for a moment after it was first listened for."""
    from falcon_mamba_app import server as composition

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(composition.signal, "signal", interrupted)
    assert composition.main() == 130


def refusal(*options: str) -> str:
    """The one line with which the app refuses to start."""
    finished = subprocess.run(
        [sys.executable, "app.py", "--model", "nano", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAX_START_S,
    )
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    return finished.stderr


def test_a_port_that_is_taken_ends_the_app(app):
    _, address = app
    assert "choose another with --port" in refusal("--port", address.rpartition(":")[2])


def test_it_ends_within_seconds_in_mid_reply(app):
    """The last one of those that ask the app: it ends it."""
    stop_in_mid_reply(*app, signal.SIGINT)


async def test_answers_leave_at_once():
    """A socket without its protocol named is none that asyncio sends small packets from at once;
    every answer then took 44 ms instead of 1, every token of a stream up to 40 ms more.
    """
    from falcon_mamba_app.settings import load_settings
    from falcon_mamba_app.web_server import listen

    with listen(load_settings(["--port", "0"], {}).server) as listener:
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def on_connection(_, writer):
            made = writer.get_extra_info("socket")
            accepted.set_result(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1)
            writer.close()

        async with await asyncio.start_server(on_connection, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await accepted
            writer.close()


def test_a_model_that_cannot_be_had_ends_the_app_with_one_line(tmp_path):
    assert "is no checkpoint" in refusal("--model", str(tmp_path))


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--share",)])
def test_an_open_door_is_said_loudly(options, caplog):
    from falcon_mamba_app import server as composition
    from falcon_mamba_app.settings import load_settings

    with caplog.at_level("WARNING"):
        composition._warn_if_open(load_settings(options, {}))
    assert "may use the page and the API" in caplog.text


def test_a_locked_or_private_server_warns_of_nothing(caplog):
    from falcon_mamba_app import server as composition
    from falcon_mamba_app.settings import load_settings

    for options in ([], ["--host", "0.0.0.0", "--auth", "a:b"], ["--share", "--api-key", "k"]):
        composition._warn_if_open(load_settings(options, {}))
    assert not caplog.text
