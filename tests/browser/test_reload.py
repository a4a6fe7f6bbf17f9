"""Coming back: a reload, a broken connection, another tab, another server."""

from contextlib import asynccontextmanager

import pytest

from tests.browser.conftest import (
    LAPTOP,
    PHONE,
    forget_status,
    open_page,
    send,
    transcript,
    wait_for_draft,
    wait_for_status,
)
from tests.browser.wire import wire_to
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page
from tests.support.services import settled

SHOWS = """(texts) => {
    const messages = document.querySelectorAll("#transcript [data-testid]");
    const shown = [...messages].map((message) => message.innerText.trim());
    return texts.every((text) => shown.includes(text));
}"""
STORY = "word " * 29 + "word"
REPLY = "You said: " + STORY

HAS_WORDS = """([text, count]) => {
    const last = (who) =>
        [...document.querySelectorAll(`#transcript [data-testid=${who}]`)].pop()?.innerText.trim();
    return last("user") === text && last("bot")?.split(/\\s+/).length === count;
}"""


async def wait_for_text(page):
    await page.wait_for_selector("#transcript [data-testid=bot]")


async def wait_for_messages(page, *texts):
    """Until they are shown. Unlike a status they still are where the page opens once more, as it
    does when its server is slow to answer.
    """
    await page.wait_for_function(SHOWS, arg=list(texts))


async def send_and_hold(page, service, text, *, at: int = 3):
    """Send a message; its reply is shown up to so many words, and does not go on by itself."""
    service.holds_at = at
    await send(page, text)
    await page.wait_for_function(HAS_WORDS, arg=[text, at])


@pytest.fixture(autouse=True)
def nothing_stays_held(service):
    """A test that fails holds no reply of the next."""
    yield
    service.holds_at = None


@pytest.mark.parametrize("viewport", [LAPTOP, PHONE])
async def test_a_reply_goes_on_through_several_reloads(browser, url, service, viewport):
    context = await browser.new_context(viewport=viewport, is_mobile=viewport is PHONE)
    page = await context.new_page()
    await open_page(page, url)
    before = service.requests_total
    await send_and_hold(page, service, STORY, at=8)
    for length in (16, 24, 31):
        await open_page(page, url)
        await wait_for_text(page)
        service.holds_at = length
        await page.wait_for_function(HAS_WORDS, arg=[STORY, length])
    await page.wait_for_selector("#stop", state="visible")
    assert not await page.locator("#send").is_visible()
    assert REPLY.startswith((await transcript(page))[-1])
    service.holds_at = None
    await wait_for_status(page, "Done")
    assert (await transcript(page))[-1] == REPLY
    assert service.requests_total == before + 1
    await page.wait_for_selector("#send", state="visible")
    await send(page, "and now?")
    await wait_for_status(page, "Done")
    assert [m.content for m in service.requests[-1].prompt] == [STORY, REPLY, "and now?"]
    await context.close()


async def test_stop_works_from_the_page_that_came_back(page, url, service):
    await send_and_hold(page, service, "LONG")
    await open_page(page, url)
    await page.wait_for_selector("#stop", state="visible")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    await settled(lambda: service.running == 0)
    kept = (await transcript(page))[-1]
    assert kept == "word word word"
    await open_page(page, url)
    assert (await transcript(page))[-1] == kept


async def test_a_reply_that_ended_while_the_page_was_away_is_there(page, url, service):
    await send_and_hold(page, service, STORY)
    await page.goto("about:blank")
    service.holds_at = None
    await settled(lambda: service.running == 0)
    await open_page(page, url)
    assert (await transcript(page))[-1] == REPLY


async def test_drafts_survive_a_reload(page, url):
    await page.locator("#composer textarea").fill("half a thou")
    await open_page(page, url)
    await wait_for_draft(page, "half a thou")
    await page.locator("#composer textarea").fill("")
    await open_page(page, url)
    assert await page.locator("#composer textarea").input_value() == ""


async def test_another_tab_shows_the_same_conversation_as_it_is_written(page, url, service):
    await send(page, "hello")
    await wait_for_status(page, "Done")
    other = await page.context.new_page()
    await open_page(other, url)
    await forget_status(other)
    await send_and_hold(page, service, STORY)
    await wait_for_status(other, "Writing")
    await other.wait_for_selector("#stop", state="visible")
    await other.locator("#stop").click()
    await wait_for_status(other, "Stopped")
    await wait_for_status(page, "Stopped")
    texts = await transcript(other)
    assert texts[:3] == ["hello", "You said: hello", STORY]
    await wait_for_messages(page, *texts)
    service.holds_at = None
    await page.locator("#clear").click()
    await wait_for_status(page, "New conversation")
    await send(other, "still here")
    await wait_for_status(other, "Done")
    assert (await transcript(other))[:3] == texts[:3]
    assert await transcript(page) == []


async def talk_over_a_wire(browser, break_it):
    """A reply whose connection breaks in the middle, as the page and the server saw it. It goes on
    when the connection is broken: what is whole then is shown by the page that opened again.
    """
    service = EchoService()
    with serve_page(service) as url:
        async with wire_to(url) as wire:
            context = await browser.new_context(viewport=LAPTOP)
            page = await context.new_page()
            await open_page(page, wire.url)
            await send_and_hold(page, service, STORY)
            await page.locator("#composer textarea").fill("my next question")
            await break_it(page, wire)
            service.holds_at = None
            await wait_for_messages(page, STORY, REPLY)
            assert service.requests_total == 1
            await wait_for_draft(page, "my next question")
            await page.wait_for_selector("#send", state="visible")  # the first reply is over
            await page.locator("#send").click()
            await wait_for_messages(page, "my next question", "You said: my next question")
            assert len(service.requests[-1].prompt) == 3
            await context.close()


async def test_a_connection_that_breaks_in_mid_reply_is_found_again(browser):
    """The page opens again by itself, and the reply is where it would have been."""

    async def cut(page, wire):
        wire.cut()
        await page.locator("#connection", has_text="The server does not answer").wait_for()
        wire.mend()

    await talk_over_a_wire(browser, cut)


async def test_a_browser_that_goes_offline_in_mid_reply_finds_it_again(browser):
    async def go_offline(page, wire):
        await page.context.set_offline(True)
        wire.cut()
        await page.locator("#connection", has_text="You are offline").wait_for()
        wire.mend()
        await page.context.set_offline(False)

    await talk_over_a_wire(browser, go_offline)


async def test_a_connection_that_dies_in_silence_is_found_out(browser):
    """As after a change of network: nobody is told, and nothing arrives any more."""

    async def swallow(page, wire):
        await page.evaluate("window.maxSilenceMs = 1_000")
        wire.swallow()

    await talk_over_a_wire(browser, swallow)


@asynccontextmanager
async def page_that_has_talked(browser, service=None):
    """A page with one exchange, and the wire to its server."""
    with serve_page(service or EchoService()) as url:
        async with wire_to(url) as wire:
            context = await browser.new_context(viewport=LAPTOP)
            page = await context.new_page()
            await open_page(page, wire.url)
            await send(page, "hello")
            await wait_for_status(page, "Done")
            yield page, wire
            await context.close()


async def test_a_page_that_the_server_has_forgotten_opens_again_with_everything(browser):
    """The server was restarted, or the visitor was away for longer than it keeps sessions."""
    next_service = EchoService()
    async with page_that_has_talked(browser) as (page, wire):
        with serve_page(next_service) as other_url:
            wire.connect_to(other_url)
            await send(page, "are you there?")
            await wait_for_status(page, "Ready")
            await wait_for_text(page)
            assert await transcript(page) == ["hello", "You said: hello"]
            await wait_for_draft(page, "are you there?")
            await page.locator("#composer textarea").press("Enter")
            await wait_for_messages(page, "are you there?", "You said: are you there?")
            assert len(next_service.requests[-1].prompt) == 3


async def test_a_server_killed_in_mid_reply_gives_the_message_back_from_the_next_one(browser):
    service = EchoService()
    async with page_that_has_talked(browser, service) as (page, wire):
        await send_and_hold(page, service, STORY)
        with serve_page(EchoService()) as other_url:
            wire.connect_to(other_url)
            await wait_for_draft(page, STORY)
            await wait_for_messages(page, "hello", "You said: hello")
            assert len(await transcript(page)) == 2
            await page.locator("#composer textarea").press("Enter")
            await wait_for_messages(page, STORY, REPLY)
            assert (await transcript(page))[-1] == REPLY


async def test_a_reload_in_mid_continuation_keeps_the_text(browser):
    service = EchoService(has_chat_template=False)
    with serve_page(service) as url:
        context = await browser.new_context(viewport=LAPTOP)
        page = await context.new_page()
        await open_page(page, url)
        text = page.locator("#document textarea")
        await text.fill("LONG ")
        service.holds_at = 3
        await page.locator("#extend").click()
        value = "document.querySelector('#document textarea').value"
        await page.wait_for_function(f"{value}.includes('word word word')")
        await open_page(page, url)
        await page.wait_for_selector("#document-stop", state="visible")
        await page.wait_for_function(f"{value}.includes('word word word')")
        length = len(await text.input_value())
        service.holds_at = 9
        await page.wait_for_function(f"{value}.length > {length}")
        await page.locator("#document-stop").click()
        await wait_for_status(page, "Stopped")
        await text.fill("written by hand")
        await open_page(page, url)
        await page.wait_for_function(
            "document.querySelector('#document textarea').value === 'written by hand'"
        )
        await context.close()
