"""The first five minutes: the page's first example, and three clicks more."""

from __future__ import annotations

import json

from falcon_mamba_app.bundled import ASSETS
from tests.browser.conftest import send, transcript, wait_for_status

EXAMPLES = json.loads((ASSETS / "examples.json").read_text())
TOUR = EXAMPLES["tour"]


async def test_four_clicks_tell_chat_ask_back_and_undo(page):
    await page.locator("#transcript .example").first.click()
    for step in TOUR[1:3]:
        await page.get_by_role("button", name=step["title"]).click()
        await page.wait_for_function(
            "text => document.querySelector('#transcript').innerText.includes('You said: ' + text)",
            arg=step["text"],
        )
    said = [message for message in await transcript(page) if not message.startswith("You said")]
    assert said == [step["text"] for step in TOUR[:3]]
    await page.get_by_role("button", name=TOUR[3]["title"]).click()
    await wait_for_status(page, "Taken back")
    assert TOUR[2]["text"] not in await transcript(page)
    # It can be asked again from there: the tour follows what was said last.
    await page.get_by_role("button", name=TOUR[2]["title"]).wait_for()


async def test_whoever_says_something_else_is_offered_no_step(page):
    await send(page, TOUR[0]["text"])
    await page.get_by_role("button", name=TOUR[1]["title"]).wait_for()
    await send(page, "hello")
    await page.locator("#tour button").wait_for(state="detached")
    await wait_for_status(page, "Done")
    assert await page.locator("#tour button").count() == 0


async def test_the_first_example_is_the_first_step():
    assert EXAMPLES["chat"][0]["text"] == TOUR[0]["text"]
