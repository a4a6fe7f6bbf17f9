"""Chromium on the page over an EchoService; one browser and one server for a module."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    async_playwright,
)
from playwright.async_api import (
    TimeoutError as Waited,
)

from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LAPTOP = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
# Playwright's own 30 s were reached on two cores that had the work of twenty.
MAX_WAIT_MS = 120_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "function", None))
        if is_async and str(item.path).startswith(here):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"no browser at {CHROMIUM}; set CHROMIUM to its path")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        make_context = browser.new_context

        async def new_context(**options: Any) -> BrowserContext:
            context = await make_context(**options)
            context.set_default_timeout(MAX_WAIT_MS)
            return context

        browser.new_context = new_context
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def service() -> EchoService:
    return EchoService()


@pytest.fixture(scope="module")
def url(service: EchoService):
    with serve_page(service) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A new visitor on a laptop, the page open and restored."""
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    await open_page(page, url)
    yield page
    await context.close()


async def open_page(page: Page, url: str) -> None:
    """Go there and wait until the load event has been answered."""
    await page.goto(url)
    await page.wait_for_selector(".status-line:not([data-phase=starting])")


FORGET_STATUS = """() => {
    document.querySelector(".status-line").className = "status-line old";
    window.repliesBefore = document.querySelectorAll("#transcript [data-testid=bot]").length;
}"""


async def forget_status(page: Page) -> None:
    """Let `wait_for_status` wait for a new status, not for the one that is already there."""
    await page.evaluate(FORGET_STATUS)


async def send(page: Page, text: str) -> None:
    """Type a message and press Enter."""
    await forget_status(page)
    await page.locator("#composer textarea").fill(text)
    await page.locator("#composer textarea").press("Enter")


# On a busy machine "Sending" and "Done" may come between two frames. The line is then the same as
# before, and is not drawn anew; the reply is there.
HAS_STATUS = """text => {
    const line = document.querySelector(".status-line");
    const replies = document.querySelectorAll("#transcript [data-testid=bot]").length;
    const isReplied = replies > window.repliesBefore && !window.page?.isBusy();
    const isNew = line && (!line.classList.contains("old") || isReplied);
    return isNew && line.innerText.includes(text);
}"""


WHAT_STANDS = """() => ["#status", "#connection"]
    .map(place => document.querySelector(place)?.outerHTML)
    .concat([window.repliesBefore, window.page?.isBusy(), document.querySelector("#main")?.outerHTML
        .slice(0, 300), document.querySelector("#composer textarea")?.value])"""


async def wait_for_status(page: Page, text: str) -> None:
    """Until the status line says so."""
    try:
        await page.wait_for_function(HAS_STATUS, arg=text)
    except Waited as error:
        error.add_note(f"On the page: {await page.evaluate(WHAT_STANDS)}")
        raise


HOLDS = "text => document.querySelector('#composer textarea')?.value === text"


async def wait_for_draft(page: Page, text: str) -> None:
    """Until the composer holds the text: what comes back is put there after its answer is shown."""
    await page.wait_for_function(HOLDS, arg=text)


async def transcript(page: Page) -> list[str]:
    """What the conversation shows, message by message."""
    messages = page.locator("#transcript [data-testid=user], #transcript [data-testid=bot]")
    return [text.strip() for text in await messages.all_inner_texts()]


SOME_FRAMES = """() => new Promise(done => {
    let left = 12;
    const count = () => (--left ? requestAnimationFrame(count) : done());
    requestAnimationFrame(count);
})"""


async def fill_for_good(field: Locator, text: str) -> None:
    """Type into a field that has just been unfolded: Gradio sets its first value once more."""
    for _ in range(20):
        await field.fill(text)
        await field.page.evaluate(SOME_FRAMES)
        if await field.input_value() == text:
            return
    raise AssertionError(f"the field never kept {text!r}")
