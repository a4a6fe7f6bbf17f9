"""The notebook: a text goes on, tells its probabilities, and what the model reads of it."""

from __future__ import annotations

import asyncio
import math

import pytest

from falcon_mamba_app.protocol import (
    Conversation,
    GenerationRequest,
    Message,
    PromptScored,
    SamplingParams,
    Text,
)
from tests.browser.conftest import forget_status, wait_for_status
from tests.support.page_server import serve_page
from tests.support.services import collect, make_local_service

IS_SHORTER = "length => document.querySelector('#document textarea').value.length < length"
BEGUN = "Once upon a time there was a small dog who lived"


@pytest.fixture(scope="module")
def service():
    return make_local_service(max_new_tokens=12)


@pytest.fixture(scope="module")
def url(service):
    with serve_page(service) as url:
        yield url


async def shown_percents(page) -> list[str]:
    titles = await page.locator("#text-sureness .word").evaluate_all(
        "words => words.map(word => word.title.split(',')[0])"
    )
    return list(titles)


def percent(p: float | None) -> str:
    if p is None:
        return "–"
    p = round(p, 4)
    return "100 %" if p >= 0.995 else "< 1 %" if p < 0.01 else f"{math.floor(100 * p + 0.5)} %"


async def test_a_text_goes_on_is_doubted_changed_and_taken_back(page, service):
    # What the chat would send, as the tokenizer has it.
    await page.locator("#composer textarea").fill("Who are you?")
    await page.get_by_role("button", name="Show prompt").click()
    dialog = page.get_by_role("dialog", name="What the model reads")
    ids = service.tokenizer.encode(Conversation([Message("user", "Who are you?")]))
    await dialog.get_by_text(f"{len(ids)} tokens").wait_for()
    pre = dialog.locator("pre")
    assert await pre.text_content() == service.tokenizer.decode(ids)
    assert await pre.locator(".markup").count() >= 2
    await dialog.get_by_role("button", name="Close").click()

    # The notebook is another page of the same tab.
    assert not await page.locator("#document-page").is_visible()
    await page.get_by_role("button", name="Notebook").click()
    text = page.locator("#document textarea")
    await text.fill(BEGUN)
    assert not await page.locator("#composer").is_visible()
    await page.locator("#extend").click()
    await wait_for_status(page, "Done")
    first = await text.input_value()
    assert first.startswith(BEGUN) and len(first) > len(BEGUN)

    # Its probabilities are the API's; colours come when they are asked for.
    await page.get_by_role("button", name="How sure?").click()
    words = page.locator("#text-sureness .word")
    await words.first.wait_for()
    request = GenerationRequest(
        prompt=Text(first), sampling=SamplingParams(max_new_tokens=0), score_prompt=5
    )
    events = asyncio.run_coroutine_threadsafe(collect(service, request), service._loop)
    [scored] = [e for e in await asyncio.wrap_future(events) if isinstance(e, PromptScored)]
    told = [None if t.logprob is None else math.exp(t.logprob) for t in scored.tokens]
    assert await shown_percents(page) == [percent(p) for p in told]
    colours = page.locator("#text-sureness").get_by_label("Colour by surprise")
    assert not await colours.is_checked()
    assert await page.locator(".sure-words[data-surprise]").count() == 0
    await colours.check()
    assert await page.locator(".sure-words[data-surprise]").count() == 1
    surprise = await words.nth(3).evaluate("word => word.style.getPropertyValue('--surprise')")
    assert float(surprise) == pytest.approx(min(12, -math.log2(told[3])) / 12, abs=2e-3)

    # Another word instead of one, and from there on.
    await words.nth(3).click()
    await forget_status(page)
    await page.locator("#text-sureness .chips button").first.click()
    await wait_for_status(page, "Done")
    second = await text.input_value()
    kept = "".join((await words.all_text_contents())[:3]) if await words.count() else ""
    assert second != first and second.startswith(kept)

    # Undo takes back one continuation after the other; then all of it is one's own.
    await forget_status(page)
    await page.locator("#extend").click()
    await wait_for_status(page, "Done")
    for _ in range(2):
        before = await text.input_value()
        await page.locator("#document-undo").click()
        await page.wait_for_function(IS_SHORTER, arg=len(before))
    assert len(await text.input_value()) < len(second)
    await page.locator("#document-prompt").click()
    await dialog.get_by_text("tokens").first.wait_for()
    assert await pre.text_content() == await text.input_value()
    await dialog.get_by_role("button", name="Close").click()

    # Back in the chat, the begun message is still there.
    await page.get_by_role("button", name="Chat", exact=True).click()
    assert await page.locator("#composer textarea").input_value() == "Who are you?"
