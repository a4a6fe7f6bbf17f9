"""Nothing that axe-core finds is wrong on the page, in any of its states and in either theme."""

import json
from pathlib import Path

import axe_playwright_python
import pytest
import pytest_asyncio

from tests.browser.conftest import LAPTOP, PHONE, open_page, send, wait_for_status

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
# The look at a whole page keeps it busy for so long that its own questions would time out.
PATIENT = "AbortSignal.timeout = () => new AbortController().signal;"
# A theme changes colours only, so one of the two is enough for all other rules.
RUN = """async (rules) => {
    const only = rules ? { runOnly: rules } : {};
    const { violations } = await axe.run(document, { resultTypes: ["violations"], ...only });
    return violations.map(({ id, nodes }) =>
        `${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 160)).join(" | ")}`);
}"""
CELL = {"length": 900, "depth": 0.5, "asked": 2, "right": 2, "low": 0.34, "high": 1}
PROBE = {
    "name": "probe.json",
    "mimeType": "application/json",
    "buffer": json.dumps(
        {
            "kind": "recall-probe",
            "model": "echo",
            "chance": 0.025,
            "plan": {"lengths": [900], "depths": [0.5], "per_cell": 2, "seed": 0},
            "cells": [CELL],
            "answers": [[900, 0.5, 0, 1, "Oslo"], [900, 0.5, 1, 1, "Rome"]],
        }
    ).encode(),
}
REPLIES = "document.querySelectorAll('#transcript [data-testid=bot]').length"
THEME = "isDark => document.body.classList.toggle('dark', isDark)"
SETTINGS = ("Model behaviour", "More filters", "Penalties, seed and stop strings")


class Look:
    """A page, and what axe has found on it so far, each with the state's name and theme."""

    def __init__(self, page):
        self.page, self.found = page, []

    async def at(self, state):
        for theme, rules in (("light", None), ("dark", ["color-contrast"])):
            await self.page.evaluate(THEME, theme == "dark")
            found = await self.page.evaluate(RUN, rules)
            self.found += [f"{state}, {theme}: {one}" for one in found]

    async def open_settings(self):
        for name in SETTINGS:
            await self.page.get_by_role("button", name=name).click()
        await self.page.locator("#control-frequency-penalty input").first.wait_for()


@pytest_asyncio.fixture(loop_scope="module")
async def look(browser, url, request):
    """Without motion: a colour in the middle of its change has no contrast to speak of."""
    context = await browser.new_context(reduced_motion="reduce", **request.param)
    await context.add_init_script(PATIENT + AXE)
    page = await context.new_page()
    await open_page(page, url)
    yield Look(page)
    await context.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("look", [{"viewport": LAPTOP}], indirect=True)
async def test_axe_finds_nothing_wrong_in_any_state(look):
    page = look.page
    await look.at("empty")
    await send(page, "SAY | a | table |\n|---|---|\n| `code` | [link](https://example.org) |")
    await page.locator(".stamp").click()
    await look.at("a memory's menu")
    await page.keyboard.press("Escape")
    await send(page, "SLOW LONG")
    await page.wait_for_function(f"{REPLIES} === 2")
    await look.at("writing")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    await page.locator("#transcript").get_by_label("Edit").first.click()
    await look.at("editing")
    await page.keyboard.press("Escape")
    await send(page, "please BREAK now")
    await wait_for_status(page, "Broken off")
    await look.at("an error")
    await page.keyboard.press("Control+Shift+O")
    await wait_for_status(page, "New conversation")
    await page.get_by_role("button", name="Side by side").click()
    await page.locator(".compared").wait_for()
    await page.locator("#composer textarea").fill("one | two")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Go on with this").wait_for()
    await page.wait_for_selector("#main:not([data-busy])")
    await look.at("side by side")
    await page.get_by_role("button", name="As code").click()
    await look.at("a dialog")
    await page.keyboard.press("Escape")
    await look.open_settings()
    await look.at("settings")
    await page.get_by_role("tab", name="Laboratory").click()
    await page.get_by_text("Compared with", exact=True).click()
    await look.at("memory against context")
    await page.get_by_role("tab", name="Recall probe").click()
    await page.locator("#lab-probe .lab-opener").set_input_files(PROBE)
    await page.locator("#lab-probe rect.heat").first.wait_for()
    await look.at("a map of recall")
    assert look.found == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "look", [{"viewport": PHONE, "is_mobile": True, "has_touch": True}], indirect=True
)
async def test_axe_finds_nothing_wrong_on_a_phone(look):
    page = look.page
    await look.at("empty")
    await send(page, "hello `code`")
    await wait_for_status(page, "Done")
    await page.get_by_role("button", name="Memory and figures").click()
    await look.open_settings()
    await look.at("a conversation, with figures and settings")
    await page.locator("#sidebar-toggle").click()
    await page.locator("#sidebar .anew").wait_for()
    await look.at("the list")
    assert look.found == []
