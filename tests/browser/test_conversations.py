"""The list of conversations, their branches, and their addresses, as their owner uses them."""

import pytest

from tests.browser.conftest import LAPTOP, PHONE, open_page, send, transcript, wait_for_status
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page

TITLES = "[...document.querySelectorAll('#sidebar .title')].map((title) => title.innerText)"

# Ends when the list has been drawn again, as it is whenever something in it changes.
DRAW_LIST_ANEW = """() => new Promise((done) => {
    const list = document.querySelector('#sidebar ul');
    window.page.ask('sidebar', 'look', { words: '' });
    const looking = setInterval(() => {
        if (list.isConnected) return;
        clearInterval(looking);
        done();
    }, 20);
})"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serve_page(EchoService(), data_dir=tmp_path_factory.mktemp("kept")) as url:
        yield url


async def wait_for_titles(page, *titles):
    await page.wait_for_function(
        f"(titles) => JSON.stringify({TITLES}) === JSON.stringify(titles)", arg=list(titles)
    )


async def test_nothing_that_was_said_is_lost_and_all_of_it_is_found(page, url):
    await send(page, "My name is Dora")
    await wait_for_status(page, "Done")
    await wait_for_titles(page, "My name is Dora")
    first = page.url
    assert "?c=" in first

    await page.keyboard.press("Control+Shift+O")
    await wait_for_status(page, "New conversation")
    assert await page.evaluate("document.activeElement.closest('#composer') !== null")
    await send(page, "a fox in Lisbon")
    await wait_for_status(page, "Done")
    await wait_for_titles(page, "a fox in Lisbon", "My name is Dora")
    assert page.url != first

    # Two tabs hold two conversations; a new one in this tab empties no other.
    other = await page.context.new_page()
    await open_page(other, first)
    await other.wait_for_selector("#transcript [data-testid=bot]")
    assert (await transcript(other))[0] == "My name is Dora"
    assert (await transcript(page))[0] == "a fox in Lisbon"
    await other.close()

    # Search looks into titles and texts; its find opens.
    await page.keyboard.press("Control+k")
    await page.keyboard.type("Dora")
    await wait_for_titles(page, "My name is Dora")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.wait_for_function(
        "document.querySelector('#transcript [data-testid=user]')?.innerText === 'My name is Dora'"
    )
    await page.locator("#sidebar input").fill("")
    await wait_for_titles(page, "a fox in Lisbon", "My name is Dora")

    # A deletion can be undone; then the list is as it was.
    await page.get_by_label("More for a fox in Lisbon").click()
    await page.evaluate(DRAW_LIST_ANEW)
    await page.get_by_role("menuitem", name="Delete").click()
    await wait_for_titles(page, "My name is Dora")
    await page.locator("#toast").get_by_role("button", name="Undo").click()
    await wait_for_titles(page, "a fox in Lisbon", "My name is Dora")

    # A reload comes back to this one.
    await open_page(page, page.url)
    await page.wait_for_selector("#transcript [data-testid=bot]")
    assert (await transcript(page))[0] == "My name is Dora"


async def test_a_deletion_outlives_the_page_that_was_closed_before_its_time(page, url):
    await send(page, "one to go")
    await wait_for_status(page, "Done")
    await page.get_by_label("More for one to go").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await page.locator("#toast").get_by_role("button", name="Undo").wait_for()
    await page.evaluate(
        """() => {
            const left = Object.keys(JSON.parse(localStorage["falcon-mamba-going"]));
            localStorage["falcon-mamba-going"] = JSON.stringify({ [left[0]]: Date.now() });
        }"""
    )
    await open_page(page, url)
    await page.wait_for_function("localStorage['falcon-mamba-going'] === undefined")
    await page.wait_for_function(f"!{TITLES}.includes('one to go')")
    await open_page(page, url)
    await page.wait_for_selector("#sidebar .kept-notice")
    assert "one to go" not in await page.evaluate(TITLES)


async def test_a_second_tab_on_a_kept_conversation_shows_what_the_first_one_says(page):
    await send(page, "said before")
    await wait_for_status(page, "Done")
    await page.wait_for_function(f"{TITLES}[0] === 'said before'")
    other = await page.context.new_page()
    await open_page(other, page.url)
    await send(page, "said in the first tab")
    await wait_for_status(page, "Done")
    await other.wait_for_function(
        "document.querySelector('#transcript').innerText.includes('You said: said in the first')"
    )
    await send(other, "and in the second")
    await page.wait_for_function(
        "document.querySelector('#transcript').innerText.includes('You said: and in the second')"
    )
    await other.close()


async def test_branches_are_walked_by_keyboard_and_the_stamp_goes_back(page):
    for text in ("first", "second"):
        await send(page, text)
        await wait_for_status(page, "Done")
    await page.locator("article.assistant").first.hover()
    await page.locator("article.assistant").first.get_by_text("Try again").click()
    await page.wait_for_selector(".forks >> text=2/2")
    assert await transcript(page) == ["first", "You said: first"]
    await page.locator("article.assistant").focus()
    await page.keyboard.press("Alt+ArrowLeft")
    await page.wait_for_selector(".forks >> text=1/2")
    await page.wait_for_function("document.querySelectorAll('article').length === 4")

    await page.locator(".stamp").first.click()
    assert await page.evaluate("document.activeElement.getAttribute('role')") == "menuitem"
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.className") == "stamp"
    await page.keyboard.press("Enter")
    await page.get_by_role("menuitem", name="Go back here 0 tokens read").click()
    await wait_for_status(page, "Back here, 0 tokens read")
    assert await transcript(page) == ["first", "You said: first"]
    await page.get_by_role("button", name="1 way on from here").click()
    await page.wait_for_function("document.querySelectorAll('article').length === 4")


async def test_on_a_phone_the_list_is_a_drawer(browser, url):
    context = await browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = await context.new_page()
    await open_page(page, url)
    await page.wait_for_selector("#sidebar nav", state="hidden")
    await page.locator("#sidebar-toggle").click()
    await page.locator("#sidebar .anew").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await page.locator("#sidebar .anew").click()
    await page.wait_for_selector("#sidebar nav", state="hidden")
    await context.close()


async def test_an_export_of_two_comes_in_and_the_first_is_shown(page):
    talks = (
        b'{"messages": [{"role": "user", "content": "a numbat"}]}\n'
        b'{"messages": [{"role": "user", "content": "a wombat"}]}'
    )
    file = {"name": "talks.jsonl", "mimeType": "application/jsonl", "buffer": talks}
    await page.set_input_files("#memory-file", file)
    await page.get_by_text("2 conversations are here, the first is open").wait_for()
    await page.wait_for_function(
        "document.querySelector('#transcript [data-testid=user]')?.innerText === 'a numbat'"
    )
    await page.wait_for_function(f"{TITLES}.includes('a wombat')")


async def test_a_server_that_is_gone_is_told_within_seconds_and_nothing_is_lost(browser):
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    with serve_page(EchoService()) as url:
        await open_page(page, url)
        await page.locator("#composer textarea").fill("a draft")
    await page.wait_for_selector("#connection:not(:empty)", timeout=10_000)
    assert "The server does not answer" in await page.locator("#connection").inner_text()
    assert await page.locator(".chip.lost").count() == 1
    await page.locator("#composer textarea").press("Enter")
    await page.locator("#toast", has_text="Not sent").wait_for()
    assert await page.locator("#composer textarea").input_value() == "a draft"
    await context.close()


async def test_delete_everything_asks_first_and_leaves_nothing_on_server_and_browser(
    browser, tmp_path
):
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    with serve_page(EchoService(), data_dir=tmp_path) as url:
        await open_page(page, url)
        await send(page, "a quokka")
        await wait_for_status(page, "Done")
        await wait_for_titles(page, "a quokka")
        await page.evaluate("localStorage.setItem('falcon-mamba-presets', '{}')")
        await page.get_by_role("button", name="Delete everything…").click()
        dialog = page.locator("dialog")
        assert "books" in await dialog.inner_text() and "branches" in await dialog.inner_text()
        await dialog.get_by_role("button", name="Cancel").click()
        await wait_for_titles(page, "a quokka")
        await page.locator("#composer textarea").fill("a draft")
        await page.get_by_role("button", name="Delete everything…").click()
        await dialog.get_by_role("button", name="Delete everything").click()
        await page.get_by_text("What is said will be listed here.").wait_for()
        await page.wait_for_selector(".status-line:not([data-phase=starting])")
        assert await transcript(page) == []
        assert "?c=" not in page.url
        assert await page.locator("#composer textarea").input_value() == ""
        assert await page.evaluate("localStorage.getItem('falcon-mamba-presets')") is None
    await context.close()
