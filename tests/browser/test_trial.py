"""What a trial of the page in a browser found wrong, and must stay as it was mended. Most of it has
tests where it belongs; this is looked at together, on one page.
"""

import json
import re

from tests.browser.conftest import LAPTOP, PHONE, open_page, send, transcript, wait_for_status

STYLES = """([selector, property]) => [...document.querySelectorAll(selector)]
    .map((element) => getComputedStyle(element)[property])"""
IN_SIGHT = """() => {
    const place = document.querySelector("#transcript .scroll");
    const last = [...document.querySelectorAll("#transcript [data-testid=user]")].pop();
    const [box, end] = [last.getBoundingClientRect(), place.getBoundingClientRect().bottom];
    return last.innerText === "below" && box.bottom <= end;
}"""


async def test_what_is_said_is_shown_as_it_was_meant(page, service):
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
    service.holds_line = True
    await send(page, "QUEUE")
    await page.wait_for_selector("#main[data-busy]")
    for name in ("retry", "undo"):
        assert (
            await page.locator(f"#{name}").get_attribute("title")
            == "Not while a reply is being written"
        )
    await page.wait_for_function("document.querySelector('.tiles').innerText.includes('1 of 4')")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    service.holds_line = False
    await page.wait_for_function("document.querySelector('.tiles').innerText.includes('0 of 4')")
    assert await page.locator("#retry").is_enabled()


LONG = 400
BUILT = "document.querySelectorAll('#transcript article:has(.tools)').length"
# The places of the rows in which anything changes, from now on.
WATCH_ROWS = """() => {
    window.touched = new Set();
    new MutationObserver((changes) => {
        const all = [...document.querySelectorAll("#transcript article")];
        for (const { target, addedNodes } of changes) {
            for (const node of [target, ...addedNodes]) {
                const row = (node.nodeType === 1 ? node : node.parentElement)?.closest("article");
                if (row) window.touched.add(all.indexOf(row));
            }
        }
    }).observe(document.querySelector("#transcript .rows"),
        { childList: true, subtree: true, attributes: true, characterData: true });
}"""

# A growing reply as the server would send it, in twenty steps.
GROW = """async () => {
    const { element } = window.parts.growing;
    for (let i = 1; i <= 20; i += 1) {
        window.parts.growing = { element, props: { value: "some words ".repeat(i) }, watch() {} };
        document.dispatchEvent(new CustomEvent("part", { detail: "growing" }));
        await new Promise((done) => requestAnimationFrame(done));
    }
    return [...document.querySelectorAll("#transcript article")].pop().innerText;
}"""


async def test_a_long_conversation_builds_what_is_near_and_a_reply_touches_its_end_alone(page):
    """With 1,000 messages a token took 9.5 ms, a scrolled frame 31."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": f"message {i}. *Some words*"} for i in range(LONG)]
    talk = json.dumps({"messages": said}).encode()
    file = {"name": "long.jsonl", "mimeType": "application/jsonl", "buffer": talk}
    await page.set_input_files("#memory-file", file)
    await page.wait_for_function(f"document.querySelectorAll('article').length === {LONG}")
    newest = "document.querySelector('.stretch:last-child article:last-child em')"
    await page.wait_for_function(newest)
    assert await page.evaluate(BUILT) < 100

    # All of it can be read and found, in its order.
    words = await page.evaluate("document.querySelector('#transcript .rows').textContent")
    assert [int(n) for n in re.findall(r"message (\d+)\.", words)] == list(range(LONG))
    stops = "document.querySelectorAll('#transcript [tabindex=\"0\"]').length"
    assert await page.evaluate(stops) < 10

    # Words as they come touch the row that they are in, and no other.
    await page.evaluate(WATCH_ROWS)
    assert (await page.evaluate(GROW)).count("some words") == 20
    assert await page.evaluate("[...window.touched]") == [LONG]

    # The browser's search finds plain words too. What comes near is built, by scrolling or by key.
    assert await page.evaluate("window.find('message 201.', false, false, true)")
    found = "getSelection().anchorNode.parentElement.closest('article')"
    place = f"[...document.querySelectorAll('article')].indexOf({found})"
    assert await page.evaluate(place) == 201
    await page.evaluate("document.querySelectorAll('article')[201].scrollIntoView()")
    await page.wait_for_function("document.querySelectorAll('article')[203].querySelector('em')")
    await page.evaluate("document.querySelector('#transcript .scroll').scrollTop = 0")
    await page.wait_for_function("document.querySelectorAll('article')[1].querySelector('em')")
    await page.locator("article").first.focus()
    for _ in range(12):
        await page.keyboard.press("ArrowDown")
    assert "message 12." in await page.evaluate("document.activeElement.innerText")
    assert await page.evaluate(BUILT) < LONG / 2


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


TILES = "[...document.querySelectorAll('.tile dd:not(.why)')].map(e => e.innerText).slice(1, 5)"
TITLES = ["#figures > button > span:first-child", "#behaviour > button > span:first-child"]
NUMBER_WIDTHS = """() => [...new Set([...document.querySelectorAll("#behaviour input[type=number]")]
    .filter((field) => field.offsetParent).map((field) => field.offsetWidth))]"""
IS_AT_END = """() => {
    const text = document.querySelector("#document textarea");
    return text.scrollTop > 0 && text.scrollTop + text.clientHeight > text.scrollHeight - 30;
}"""


async def test_the_panel_argues_for_the_product_and_everything_follows_what_is_written(page):
    # In the first turns attention takes less: the chart says where they are even, and what comes.
    await send(page, "hello")
    await wait_for_status(page, "Done")
    chart = page.locator(".chart")
    assert await chart.locator("circle.even").count() == 1
    assert "They are even at 280 tokens" in await chart.locator("svg").get_attribute("aria-label")
    assert "At 1 M tokens: 860 kB here, 3.07 GB with attention." in await chart.inner_text()
    # What the process takes is all visitors': it stands apart, with what is in it.
    assert "Process memory" not in await page.locator(".tiles").inner_text()
    await page.get_by_text("What this server's memory holds").click()
    held = await page.locator(".more-figures").inner_text()
    assert all(name in held for name in ("Process memory", "Weights", "Restore points ("))
    # A reload keeps the figures of the last reply.
    await page.wait_for_function(f"!{TILES}.includes('–')")
    figures = await page.evaluate(TILES)
    await open_page(page, page.url)
    await page.wait_for_selector("#transcript [data-testid=bot]")
    await page.wait_for_function(f"figures => `${{{TILES}}}` === `${{figures}}`", arg=figures)

    # One look for all: titles, numbers, and which preset is set.
    await page.get_by_role("button", name="Model behaviour").click()
    await page.get_by_role("button", name="Precise").click()
    await page.locator(".preset[aria-pressed=true]", has_text="Precise").wait_for()
    assert len(await page.evaluate(NUMBER_WIDTHS)) == 1
    for title in TITLES:
        assert await page.evaluate(STYLES, [title, "fontWeight"]) == ["600"]

    # The tools stand on one line, and the notebook shows what it writes.
    assert await page.evaluate("document.querySelector('#tools').offsetHeight") < 40
    await page.get_by_role("button", name="Notebook").click()
    await page.locator("#document textarea").fill("Once upon a time\n" * 60 + "LONG")
    await page.locator("#document textarea").evaluate("text => { text.scrollTop = 0; }")
    await page.locator("#extend").click()
    await page.wait_for_function(IS_AT_END)
    box = await page.locator("#extend, #document-stop").locator("visible=true").bounding_box()
    assert box["y"] + box["height"] <= LAPTOP["height"]
