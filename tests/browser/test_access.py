"""For everybody: names for screen readers, contrast, keyboard, small screens, both themes."""

import pytest

from tests.browser.conftest import LAPTOP, PHONE, open_page, send, wait_for_status

# The parts of the accessible-name computation that this page uses.
NAMELESS_JS = """() => {
  const named = (element) => [
    element.getAttribute('aria-label'),
    ...[...(element.labels || [])].map((label) => label.innerText),
    ...(element.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent),
    element.tagName === 'BUTTON' ? element.innerText : '',
    element.title,
  ].some((name) => name && name.trim());
  return [...document.querySelectorAll('button, input, textarea, select, [role=button]')]
    .filter((element) => element.offsetParent !== null && !named(element))
    .map((element) => element.outerHTML.slice(0, 200));
}"""

# Contrast of each visible text with the nearest opaque background, WCAG 2.
LOW_CONTRAST_JS = """() => {
  const parse = (color) => {
    const parts = color.match(/[\\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3), alpha: parts[3] ?? 1 };
  };
  const luminance = (rgb) => rgb.map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.alpha === 1) return color.rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('script, style, svg, pre')) continue;
    if (element.closest('button:disabled') || !element.checkVisibility()) continue;
    const [a, b] = [parse(getComputedStyle(element).color).rgb, background(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const text = walker.currentNode.data.trim().slice(0, 40);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${text}`);
  }
  return found;
}"""


async def unfold(page):
    for name in ("Model behaviour", "Penalties, seed and stop strings"):
        await page.get_by_role("button", name=name).click()
    await page.wait_for_selector("text=Presence penalty")


async def talk(page):
    await send(page, "hello `code`")
    await wait_for_status(page, "Done")


async def test_every_control_has_an_accessible_name(page):
    assert await page.evaluate(NAMELESS_JS) == []
    await talk(page)
    await unfold(page)
    assert await page.evaluate(NAMELESS_JS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_contrast_in_both_themes(browser, url, scheme):
    context = await browser.new_context(viewport=LAPTOP, color_scheme=scheme)
    page = await context.new_page()
    await open_page(page, url)
    assert await page.evaluate(LOW_CONTRAST_JS) == []
    await talk(page)
    await unfold(page)
    assert await page.evaluate(LOW_CONTRAST_JS) == []
    await context.close()


# Notes what a screen reader would say of the page: every change of a live region.
HEAR_JS = """() => {
  window.heard = [];
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
      const region = element?.closest("[aria-live], [role=status], [role=alert], [role=log]");
      if (region && region.getAttribute("aria-live") !== "off") heard.push(region.innerText.trim());
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""


async def test_the_status_is_said_once_for_each_phase_and_not_with_every_figure(page):
    await page.evaluate(HEAR_JS)
    await send(page, "SLOW " + "word " * 20)
    await wait_for_status(page, "Done")
    await page.wait_for_function("document.querySelector('#teller').textContent === 'Done'")
    said = await page.evaluate("heard.filter((words) => words.startsWith('Writing'))")
    assert len(said) <= 1
    assert await page.locator("#status [aria-live], #status [role=status]").count() == 0


async def test_a_screen_reader_is_told_a_reply_once_and_nothing_again_after_a_reload(page, url):
    """As a live region the whole conversation was said anew with every word, and after a reload."""
    await talk(page)
    await page.wait_for_function("document.querySelector('#announcer').textContent")
    await page.evaluate(HEAR_JS)
    await send(page, "SLOW " + "word " * 12)
    await page.wait_for_function("heard.some((words) => words.startsWith('You said: SLOW'))")
    told = await page.evaluate("heard.filter((words) => words.includes('You said'))")
    assert told == ["You said: SLOW " + "word " * 11 + "word"]
    await page.add_init_script(f"addEventListener('DOMContentLoaded', {HEAR_JS})")
    await open_page(page, url)
    await page.wait_for_selector("#transcript [data-testid=bot]")
    assert await page.evaluate("heard.filter((words) => words.includes('You said'))") == []


async def test_messages_and_the_whole_conversation_can_be_copied(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await talk(page)
    await page.locator("#transcript button[aria-label='Copy message']").last.click()
    await page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.includes('You said: hello'))"
    )
    await page.locator("#copy-all").click()
    await page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.startsWith('user: hello'))"
    )


async def test_the_chart_speaks_for_itself(page):
    label = await page.locator(".chart svg[role=img]").get_attribute("aria-label")
    assert "constant" in label
    assert "computed" in label.lower()


async def test_the_theme_follows_the_system_until_it_is_switched(browser, url):
    context = await browser.new_context(viewport=LAPTOP, color_scheme="dark")
    page = await context.new_page()
    await open_page(page, url)
    is_dark = "document.body.classList.contains('dark')"
    await page.wait_for_function(is_dark)
    await page.get_by_role("button", name="Switch between light and dark").click()
    await page.wait_for_function(f"!{is_dark}")
    await open_page(page, url)
    await page.wait_for_function(f"!{is_dark}")
    await context.close()


async def test_the_keyboard_reaches_send_from_the_composer_and_focus_is_visible(page):
    await page.locator("#composer textarea").focus()
    await page.keyboard.press("Tab")
    focused = "document.activeElement.id"
    assert await page.evaluate(focused) == "send"
    outline = await page.evaluate("parseInt(getComputedStyle(document.activeElement).outlineWidth)")
    assert outline >= 2


@pytest.mark.parametrize("viewport", [LAPTOP, {"width": 1440, "height": 900}, PHONE])
async def test_nothing_scrolls_sideways_and_the_composer_is_in_reach(browser, url, viewport):
    context = await browser.new_context(viewport=viewport, is_mobile=viewport is PHONE)
    page = await context.new_page()
    await open_page(page, url)
    await send(page, "a" * 200 + " `" + "b" * 200 + "`\n\n```\n" + "c" * 300 + "\n```")
    await wait_for_status(page, "Done")
    assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    box = await page.locator("#composer").bounding_box()
    assert box["y"] + box["height"] <= viewport["height"]
    await context.close()


async def test_on_a_phone_the_figures_wait_folded(browser, url):
    context = await browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = await context.new_page()
    await open_page(page, url)
    await page.wait_for_selector("#panel", state="hidden")
    await page.get_by_role("button", name="Memory and figures").click()
    await page.wait_for_selector("#panel .tiles", state="visible")
    await context.close()


async def test_the_page_asks_no_other_host_for_anything(browser, url):
    context = await browser.new_context(viewport=LAPTOP)
    page = await context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    await open_page(page, url)
    await talk(page)
    assert [u for u in asked if not u.startswith((url, "data:", "blob:"))] == []
    await context.close()
