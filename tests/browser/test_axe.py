"""Nothing that axe-core finds is wrong on the page, in either theme."""

import json
from pathlib import Path

import axe_playwright_python
import pytest

from tests.browser.conftest import LAPTOP, open_page

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
# The look at a whole page keeps it busy for so long that its own questions would time out.
PATIENT = "AbortSignal.timeout = () => new AbortController().signal;"
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
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
THEME = "isDark => document.body.classList.toggle('dark', isDark)"


async def violations(page, state):
    """What is wrong in the state that the page is in, by its name and theme."""
    found = []
    for theme in ("light", "dark"):
        await page.evaluate(THEME, theme == "dark")
        found += [f"{state}, {theme}: {one}" for one in await page.evaluate(RUN)]
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_axe_finds_nothing_wrong_in_either_theme(browser, url):
    # Without motion: a colour in the middle of its change has no contrast to speak of.
    context = await browser.new_context(viewport=LAPTOP, reduced_motion="reduce")
    await context.add_init_script(PATIENT + AXE)
    page = await context.new_page()
    await open_page(page, url)
    found = await violations(page, "empty")
    await page.get_by_role("button", name="Side by side").click()
    await page.locator("#composer textarea").fill("one | two")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Go on with this").wait_for()
    await page.wait_for_selector("#main:not([data-busy])")
    found += await violations(page, "side by side")
    await page.get_by_role("button", name="As code").click()
    found += await violations(page, "a dialog")
    await page.keyboard.press("Escape")
    await page.get_by_role("tab", name="Laboratory").click()
    await page.get_by_text("Compared with", exact=True).click()
    found += await violations(page, "memory against context")
    await page.get_by_role("tab", name="Recall probe").click()
    await page.locator("#lab-probe .lab-opener").set_input_files(PROBE)
    await page.locator("#lab-probe rect.heat").first.wait_for()
    found += await violations(page, "a map of recall")
    await context.close()
    assert found == []
