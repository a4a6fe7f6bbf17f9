"""What a newcomer does without meaning to: empty messages, emptied fields, HTML, a reload."""

from dataclasses import replace

import pytest

from falcon_mamba_app.protocol import ServiceStats
from tests.browser.conftest import (
    LAPTOP,
    PHONE,
    fill_for_good,
    open_page,
    send,
    wait_for_status,
)
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page

NAMES_JS = """() => [...document.querySelectorAll('#chat button, #side button')]
  .filter((button) => button.checkVisibility({ visibilityProperty: true }))
  .map((button) => button.getAttribute('aria-label') || button.innerText.trim())"""


HEAD = ("h1", ".chip .name", "#theme-toggle")  # from left to right


class LongName(EchoService):
    def stats(self) -> ServiceStats:
        stats = super().stats()
        return replace(stats, model=replace(stats.model, id="falcon-mamba-7b-instruct"))


async def unfold(page):
    await page.get_by_role("button", name="Model behaviour").click()
    await page.wait_for_selector("#control-temperature", state="visible")


@pytest.mark.parametrize("blank", ["", "   "])
async def test_a_blank_message_changes_nothing(page, blank):
    names = await page.evaluate(NAMES_JS)
    assert "Send" in names
    await page.locator("#composer textarea").fill(blank)
    await page.locator("#composer textarea").press("Enter")
    await page.locator("#send").click()
    await page.locator("#undo").click()  # its answer comes after those of the two before
    await wait_for_status(page, "Nothing to undo")
    assert await page.evaluate(NAMES_JS) == names
    await send(page, "SLOW LONG")
    await page.get_by_role("button", name="Stop", exact=True).click()
    await page.get_by_role("button", name="Send", exact=True).wait_for()


@pytest.mark.parametrize("name", ["Retry", "Undo"])
async def test_retry_and_undo_of_nothing_change_the_status_alone(page, name):
    names = await page.evaluate(NAMES_JS)
    await page.get_by_role("button", name=name, exact=True).click()
    await wait_for_status(page, "Nothing to " + name.lower())
    assert await page.evaluate(NAMES_JS) == names


async def test_buttons_have_names_of_their_own(page):
    await send(page, "hello")
    await wait_for_status(page, "Done")
    await unfold(page)
    names = await page.evaluate(NAMES_JS.replace("#chat button", "#chat button:not(article *)"))
    assert len(set(names)) == len(names)
    in_a_message = NAMES_JS.replace("#chat button, #side button", "article:last-of-type button")
    names = await page.evaluate(in_a_message)
    assert len(set(names)) == len(names) > 3
    await page.get_by_role("region", name="Memory", exact=True).wait_for()


async def test_the_browser_itself_refuses_images_of_other_hosts(page):
    refused = """() => new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', (e) => resolve(e.blockedURI));
      new Image().src = 'http://example.org/x.png';
    })"""
    assert "example.org" in await page.evaluate(refused)


async def test_a_copied_message_is_what_was_typed(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await send(page, "see <b>this</b>")
    await wait_for_status(page, "Done")
    await page.locator("#transcript button[aria-label='Copy message']").first.click()
    await page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.trim() === 'see <b>this</b>')"
    )


async def test_an_emptied_temperature_becomes_the_model_s_default(page):
    await unfold(page)
    field = page.get_by_label("number input for Temperature")
    await fill_for_good(field, "1.5")
    await field.fill("")
    await field.press("Tab")
    await page.wait_for_function(
        "document.querySelector('#control-temperature input[type=number]').value == '0.4'"
    )


async def test_a_seed_too_large_is_quoted_as_typed(page):
    await unfold(page)
    await page.get_by_role("button", name="Penalties, seed and stop strings").click()
    await fill_for_good(page.get_by_label("Seed"), "99999999999999999999")
    await send(page, "hello")
    await page.locator(".said", has_text="Seed is 99999999999999999999;").wait_for()


async def test_opened_settings_are_in_sight(browser, url):
    context = await browser.new_context(viewport={"width": 1360, "height": 860})
    page = await context.new_page()
    await open_page(page, url)
    await send(page, "word " * 1_000)
    await wait_for_status(page, "Done")
    await send(page, "hello")
    await page.get_by_text("Beyond its training.").wait_for()
    await unfold(page)
    await page.wait_for_function(
        "document.querySelector('#control-top-p').getBoundingClientRect().bottom < innerHeight"
    )
    await context.close()


async def test_the_panel_does_not_jump_with_the_first_message(page):
    height = "document.querySelector('.chart').getBoundingClientRect().height"
    before = await page.evaluate(height)
    await send(page, "hello")
    await wait_for_status(page, "Done")
    assert await page.evaluate(height) == before


async def test_on_a_phone_what_is_touched_is_large_enough(browser, url):
    context = await browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = await context.new_page()
    await open_page(page, url)
    await send(page, "hello")
    await wait_for_status(page, "Done")
    await unfold(page)
    small = """() => [...document.querySelectorAll('#chat button, #side button')]
      .filter((b) => b.offsetParent && (b.offsetWidth < 32 || b.offsetHeight < 32))
      .map((b) => b.outerHTML.slice(0, 80))"""
    assert await page.evaluate(small) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await context.close()


async def test_the_layout_fits_a_laptop_with_the_settings_open(page):
    await unfold(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= LAPTOP["width"]


async def test_on_a_laptop_memory_and_chart_are_seen_without_scrolling(page):
    """The figures ended in the middle of a line, cut off by the window's end."""
    await send(page, "hello")
    await wait_for_status(page, "Done")
    end = "document.querySelector('.chart figcaption').getBoundingClientRect().bottom"
    assert await page.evaluate(f"{end} <= document.querySelector('#side').clientHeight + 120")


async def test_a_long_model_name_takes_no_room_from_the_rest_of_the_head(browser):
    """On a phone it was cut off in the middle of a letter, and the title took two lines."""
    with serve_page(LongName()) as url:
        context = await browser.new_context(viewport=PHONE, is_mobile=True)
        page = await context.new_page()
        await open_page(page, url)
        boxes = [await page.locator(f".masthead {part}").bounding_box() for part in HEAD]
        await context.close()
    assert all(box["height"] < 45 for box in boxes)
    assert boxes[-1]["width"] >= 36
    ends = [box["x"] + box["width"] for box in boxes]
    assert all(end <= box["x"] for end, box in zip(ends, boxes[1:], strict=False))
    assert ends[-1] <= PHONE["width"]
