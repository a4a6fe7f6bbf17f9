"""The page as on ZeroGPU: its visitors are known to the platform, and pay with their own quota."""

import pytest

from tests.app.test_app import wait_until_ready
from tests.browser.conftest import send, transcript, wait_for_status
from tests.support.zero_gpu_platform import DeviceApi, running_space


@pytest.fixture(scope="module")
def device_api():
    return DeviceApi()


@pytest.fixture(scope="module")
def url(device_api, tmp_path_factory):
    with running_space(device_api, tmp_path_factory.mktemp("space") / "log") as (_, address):
        wait_until_ready(address)
        yield address


async def test_a_conversation_takes_a_loan_for_each_turn(page, device_api):
    for text in ("Hello!", "And then?"):
        await send(page, text)
        await wait_for_status(page, "Done")
    assert len(await transcript(page)) == 4
    device_api.all_back()
    assert [path for path, _ in device_api.asked].count("/release") == 2


async def test_a_spent_quota_is_said_and_the_message_kept(page, device_api):
    device_api.is_spent = True
    await send(page, "Once more")
    await page.wait_for_selector("text=is spent for now")
    assert await page.locator("#composer textarea").input_value() == "Once more"
    device_api.is_spent = False
    await send(page, "Once more")
    await wait_for_status(page, "Done")


async def test_stop_gives_the_gpu_back(page, device_api):
    num_before = device_api.all_back()
    await send(page, "Tell me a long story")
    await page.wait_for_selector("#transcript [data-testid=bot]")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    device_api.all_back()
    assert "/release" in [path for path, _ in device_api.asked[num_before:]]
