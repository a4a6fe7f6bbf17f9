"""The app as on ZeroGPU, with Hugging Face's own package between it and a GPU that is lent.

Its visitors, on the page and through gradio_client, are known to the platform, and pay with their
own quota.
"""

from __future__ import annotations

import signal
import time

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.app.test_app import wait_until_ready
from tests.browser.conftest import send, transcript, wait_for_draft, wait_for_status
from tests.support.zero_gpu_platform import DeviceApi, running_space


@pytest.fixture(scope="module")
def device_api():
    return DeviceApi()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def space(device_api, folder):
    log = folder / "log"
    with running_space(device_api, log) as (process, address):
        wait_until_ready(address)
        yield process, address, log


@pytest.fixture(scope="module")
def address(space):
    return space[1]


@pytest.fixture(scope="module")
def url(address):
    """What the page is opened at."""
    return address


@pytest.fixture
def visitor(address):
    client = Client(address, verbose=False)
    yield client
    client.close()


def last_loan(device_api: DeviceApi) -> dict[str, str]:
    return [query for path, query in device_api.asked if path == "/schedule"][-1]


def test_the_platform_hears_of_the_start(address, device_api):
    assert device_api.asked[0][0] == "/startup-report"


def test_each_turn_is_one_loan_that_is_given_back(visitor, device_api):
    num_before = device_api.all_back()
    for text in ("Hello!", "And then?"):
        assert visitor.predict(text, api_name="/chat")
        device_api.all_back()
    paths = [path for path, _ in device_api.asked[num_before:] if path != "/allow"]
    assert paths == ["/schedule", "/release"] * 2
    assert last_loan(device_api)["durationSeconds"] == "26"  # 12 + 1 + 512 tokens at 40 a second


def test_a_shorter_reply_is_a_shorter_loan(visitor, device_api):
    assert visitor.predict("Hello!", max_new_tokens=40, api_name="/chat")
    assert last_loan(device_api)["durationSeconds"] == "15"


def test_a_spent_quota_is_a_sentence_with_the_platforms_own_figures(visitor, device_api):
    device_api.is_spent = True
    with pytest.raises(AppError, match="is spent for now. .*GPU limit"):
        visitor.predict("Hello!", api_name="/chat")
    device_api.is_spent = False
    assert visitor.predict("Hello!", api_name="/chat")


def figure(address: str, name: str) -> float:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_a_stop_leaves_the_state_that_has_read_the_prompt(visitor, address):
    job = visitor.submit("Tell me of the sea. " * 20, max_new_tokens=400, api_name="/chat")
    next(iter(job))
    job.cancel()
    deadline_s = time.monotonic() + 30
    while figure(address, "falcon_mamba_sequences_running"):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    reused = figure(address, "falcon_mamba_reused_tokens_total")
    assert visitor.predict("Go on.", max_new_tokens=8, api_name="/chat")
    assert figure(address, "falcon_mamba_reused_tokens_total") > reused + 100


def test_the_api_is_off_and_says_what_to_use(address, device_api):
    num_before = device_api.all_back()
    body = {"messages": [{"role": "user", "content": "Hello!"}]}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "gradio_client" in answer.json()["error"]["message"]
    assert len(device_api.asked) == num_before


async def test_a_conversation_takes_a_loan_for_each_turn(page, device_api):
    num_before = device_api.all_back()
    for text in ("Hello!", "And then?"):
        await send(page, text)
        await wait_for_status(page, "Done")
    assert len(await transcript(page)) == 4
    device_api.all_back()
    assert [path for path, _ in device_api.asked[num_before:]].count("/release") == 2


async def test_a_spent_quota_is_said_and_the_message_kept(page, device_api):
    device_api.is_spent = True
    await send(page, "Once more")
    await page.wait_for_selector("text=is spent for now")
    await wait_for_draft(page, "Once more")
    device_api.is_spent = False
    await send(page, "Once more")
    await wait_for_status(page, "Done")


async def test_stop_gives_the_gpu_back(page, device_api, folder):
    num_before = device_api.all_back()
    (folder / "slow").touch()  # the reply must not end by itself
    await send(page, "Tell me a long story")
    await page.wait_for_selector("#transcript [data-testid=bot]")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    (folder / "slow").unlink()
    device_api.all_back()
    assert "/release" in [path for path, _ in device_api.asked[num_before:]]


def test_it_ends_within_seconds_with_a_process_that_waits_for_turns(space):
    process, _, log = space
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in log.read_text()
