"""What a trial of the page in a browser found wrong, and must stay as it was mended. Most of it has
tests where it belongs; this is looked at together, on one page.
"""

from tests.browser.conftest import LAPTOP, PHONE, open_page, send, transcript, wait_for_status

STYLES = """([selector, property]) => [...document.querySelectorAll(selector)]
    .map((element) => getComputedStyle(element)[property])"""
IN_SIGHT = """() => {
    const place = document.querySelector("#transcript .scroll");
    const last = [...document.querySelectorAll("#transcript [data-testid=user]")].pop();
    const [box, end] = [last.getBoundingClientRect(), place.getBoundingClientRect().bottom];
    return last.innerText === "below" && box.bottom <= end;
}"""


async def test_what_is_said_is_shown_as_it_was_meant(page):
    await send(page, "SAY | a | b | c |\n|:--|--:|:-:|\n| one | 2 | three |")
    await wait_for_status(page, "Done")
    aligned = (
        "[...document.querySelectorAll('#transcript td')].map(e => getComputedStyle(e).textAlign)"
    )
    assert await page.evaluate(aligned) == ["start", "end", "center"]

    # Each line has its own direction, in what the visitor says and in what the model says.
    await send(page, "SAY مرحبا.\n\n- أولاً.")
    await wait_for_status(page, "Done")
    texts = "article:nth-last-child(-n+2) :is(.said:not(.prose), .prose > p, li)"
    assert await page.evaluate(STYLES, [texts, "unicodeBidi"]) == ["plaintext"] * 3

    # A long paste shows its beginning, and is edited in a box that fits it.
    await send(page, "\n".join(f"line {n}" for n in range(40)))
    await wait_for_status(page, "Done")
    assert await page.locator(".said.folded").count() == 1
    await page.get_by_role("button", name="Show all").click()
    assert await page.locator(".said.folded").count() == 0
    await page.locator("#transcript .user-row").last.get_by_label("Edit").click()
    height = "document.querySelector('#transcript textarea').offsetHeight / innerHeight"
    assert await page.evaluate(height) > 0.5
    await page.keyboard.press("Escape")
    await page.locator("#transcript textarea").wait_for(state="detached")
    assert await page.evaluate("document.activeElement.ariaLabel") == "Edit"

    # What one sends comes into sight, wherever one was reading; what cannot be done now says so.
    await page.evaluate("document.querySelector('#transcript .scroll').scrollTop = 0")
    await page.get_by_role("button", name="The newest words").wait_for()
    await send(page, "below")
    await page.wait_for_function(IN_SIGHT)
    await send(page, "SLOW LONG")
    await page.wait_for_selector("#main[data-busy]")
    for name in ("retry", "undo"):
        assert (
            await page.locator(f"#{name}").get_attribute("title")
            == "Not while a reply is being written"
        )
    await page.wait_for_function("document.querySelector('.tiles').innerText.includes('1 of 4')")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    await page.wait_for_function("document.querySelector('.tiles').innerText.includes('0 of 4')")
    assert await page.locator("#retry").is_enabled()


async def test_a_low_window_shows_conversation_and_composer_together(browser, url):
    """A phone on its side, and a laptop at 200 %."""
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    await open_page(page, url)
    await send(page, "SAY " + "one two three four five six seven. " * 30)
    await wait_for_status(page, "Done")
    for width, height in ((844, 390), (640, 360), (1100, 400)):
        await page.set_viewport_size({"width": width, "height": height})
        await page.wait_for_function(f"innerHeight === {height}")
        composer = await page.locator("#composer-row").bounding_box()
        talk = await page.locator("#transcript").bounding_box()
        assert composer["y"] + composer["height"] <= height, (width, height)
        assert talk["height"] >= 0.28 * height and talk["y"] >= 0, (width, height)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await context.close()


async def test_on_a_phone_a_wide_table_scrolls_inside_its_message(browser, url):
    context = await browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = await context.new_page()
    await open_page(page, url)
    cells = " | ".join(f"Heading{n}" for n in range(9))
    await send(page, f"SAY | {cells} |\n|{'--|' * 9}\n| {cells} |")
    await wait_for_status(page, "Done")
    assert (await transcript(page))[1].count("Heading4") == 2
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert await page.evaluate("document.querySelector('.scroll').scrollWidth") <= PHONE["width"]
    # Its cells are not broken inside a word.
    assert await page.evaluate("document.querySelector('#transcript td').offsetHeight") < 60
    await context.close()


POOR = """() => {
    for (const name of ["localStorage", "sessionStorage"]) {
        const get = () => { throw new DOMException("Access is denied.", "SecurityError"); };
        Object.defineProperty(window, name, { get, configurable: true });
    }
    navigator.clipboard.writeText = () => Promise.reject(new DOMException("", "NotAllowedError"));
    document.execCommand = () => false;
}"""


async def test_a_browser_that_keeps_and_copies_nothing_can_chat_and_is_told(browser, url):
    """As in another site's frame, or with cookies refused."""
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    await page.add_init_script(f"({POOR})()")
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda said: said.type == "error" and complaints.append(f"console: {said.text}")
    )
    await open_page(page, url)
    await send(page, "hello")
    await wait_for_status(page, "Done")
    is_dark = "document.body.classList.contains('dark')"
    before = await page.evaluate(is_dark)
    await page.locator("#theme-toggle").click()
    assert await page.evaluate(is_dark) is not before
    for button in ("#copy-all", "#transcript button[aria-label='Copy message'] >> nth=-1"):
        await page.evaluate("window.page.note('')")
        await page.locator(button).click()
        await page.locator("#toast", has_text="does not let the page copy").wait_for()
    await send(page, "SLOW LONG")
    await page.wait_for_function("window.page.isBusy()")
    await page.keyboard.press("Escape")
    await page.wait_for_function("!window.page.isBusy()")
    assert complaints == []
    await context.close()
