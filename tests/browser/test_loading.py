"""The page before the model is ready, without one, and with a model that cannot chat."""

from dataclasses import replace

import pytest
import pytest_asyncio

from falcon_mamba_app.protocol import ServiceStats
from tests.browser.conftest import LAPTOP, open_page, send, wait_for_draft, wait_for_status
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page


class LoadingService(EchoService):
    """Loads until the test says that it is ready."""

    def make_ready(self) -> None:
        self._status = "ready"

    def stats(self) -> ServiceStats:
        stats = super().stats()
        if stats.status == "ready":
            return stats
        return replace(stats, model=None, detail="weights, 5 of 15 GB", load_progress=0.35)


@pytest.fixture
def loading():
    return LoadingService()


@pytest.fixture
def url(loading):
    with serve_page(loading, is_loading=True) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(browser):
    context = await browser.new_context(viewport=LAPTOP)
    yield await context.new_page()
    await context.close()


async def test_the_page_is_up_while_the_model_loads_and_becomes_ready_by_itself(
    visitor, url, loading
):
    await open_page(visitor, url)
    bar = visitor.get_by_role("progressbar", name="Loading the model")
    await bar.wait_for()
    assert await bar.get_attribute("aria-valuenow") == "35"
    assert await visitor.locator("#send").is_disabled()
    async with visitor.expect_response("**/health/live") as asked:
        await visitor.evaluate("dispatchEvent(new Event('offline'))")  # the page asks at once
    assert (await asked.value).status == 200
    assert await visitor.locator("#connection").inner_text() == ""
    await send(visitor, "too early")
    await wait_for_status(visitor, "Not answered")
    await wait_for_draft(visitor, "too early")
    loading.make_ready()
    await bar.wait_for(state="detached")
    await visitor.wait_for_function("!document.querySelector('#send').disabled")
    await visitor.locator("#send").click()
    await wait_for_status(visitor, "Done")


VALUE = "document.querySelector('#document textarea').value"


async def test_a_base_model_continues_a_text(visitor):
    with serve_page(EchoService(has_chat_template=False)) as url:
        await open_page(visitor, url)
        text = visitor.locator("#document textarea")
        await text.fill("Once upon a time ")
        await visitor.locator("#extend").click()
        await wait_for_status(visitor, "Done")
        assert await text.input_value() == "Once upon a time and so on."
        assert await visitor.locator("#transcript").count() == 0
        await visitor.locator("#document-undo").click()
        await wait_for_status(visitor, "Taken back")
        assert await text.input_value() == "Once upon a time "
        # What was typed stays; what takes its place can be called back.
        await text.press_sequentially("mine")
        await visitor.locator("#document-undo").click()
        await wait_for_status(visitor, "Nothing to undo")
        for away in ("#document-clear", "#document-page .gallery-item"):
            await visitor.locator(away).first.click()
            await visitor.wait_for_function(f"({VALUE}) !== 'Once upon a time mine'")
            await visitor.locator("#toast").get_by_role("button", name="Undo").click()
            await visitor.wait_for_function(f"({VALUE}) === 'Once upon a time mine'")
        await visitor.get_by_role("button", name="Model behaviour").click()
        await visitor.locator("#control-temperature input").first.wait_for()
        assert await visitor.locator("#system-prompt").count() == 0  # it would do nothing here
        await visitor.goto("about:blank")
