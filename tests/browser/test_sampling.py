"""What one can see of the sampling, and the settings that one keeps: probabilities and presets."""

import json

from tests.browser.conftest import (
    LAPTOP,
    fill_for_good,
    open_page,
    send,
    transcript,
    wait_for_status,
)


async def open_settings(page):
    """Unfold them, and wait until they stand."""
    await page.get_by_role("button", name="Model behaviour").click()
    await page.locator(".presets .preset").first.wait_for()


async def test_a_reply_tells_how_sure_the_model_was_and_goes_on_from_another_word(page, service):
    await send(page, "one two")
    await wait_for_status(page, "Done")
    await page.get_by_role("button", name="How sure?").click()
    await page.locator(".word").nth(2).click()
    assert await page.locator(".word").all_inner_texts() == ["You", " said:", " one", " two"]
    assert "one was chosen; its probability is 61 %" in await page.inner_text(".alternatives")
    asked = service.requests[-1]
    assert (asked.is_aside, asked.sampling.max_new_tokens) == (True, 0)

    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")  # to the alternatives of the word that has the focus
    await page.get_by_role("button", name="…alt1 · 22 %").click()
    await page.wait_for_selector(".forks >> text=2/2")
    assert (await transcript(page))[1].startswith("You said: onealt1")

    await page.get_by_role("button", name="How sure?").click()
    await page.locator(".word").first.wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_selector(".sureness", state="detached")
    assert await page.evaluate("document.activeElement.matches('article.assistant')")


async def test_a_pasted_system_prompt_tells_its_price_counts_and_is_remembered(page, service, url):
    await send(page, "hello")
    await wait_for_status(page, "Done")
    await open_settings(page)
    prompt = page.locator("#system-prompt textarea")
    await prompt.focus()
    await page.keyboard.insert_text("Be brief.")  # as a paste: no key is pressed
    await page.locator(".system-cost", has_text="read again from its first word").wait_for()
    await page.wait_for_function("localStorage.getItem('falcon-mamba-settings')")
    await open_page(page, url)
    await open_settings(page)
    await page.wait_for_function(
        "document.querySelector('#system-prompt textarea').value === 'Be brief.'"
    )
    await send(page, "again")
    await wait_for_status(page, "Done")
    assert service.requests[-1].prompt[0].content == "Be brief."
    # Under it all has been read now; the one before has its price again.
    await page.wait_for_selector(".system-cost:empty", state="attached")
    await prompt.fill("")
    await page.locator(".system-cost", has_text="read again").wait_for()


async def test_a_preset_of_ones_own_is_kept_and_leaves_by_link_and_by_file(browser, url):
    context = await browser.new_context(viewport=LAPTOP)
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    await open_page(page, url)
    await open_settings(page)
    prompt = page.locator("#system-prompt textarea")
    await fill_for_good(prompt, "Answer like a pirate, Señor.")
    await page.get_by_role("button", name="Creative").click()
    await page.wait_for_selector(".preset[aria-pressed=true] >> text=Creative")
    await page.get_by_role("button", name="Save as…").click()
    await page.keyboard.type("Pirate")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".preset[aria-pressed=true] >> text=Pirate")

    # Any change leaves it, one click comes back to it, and a reload forgets nothing.
    await prompt.fill("Answer briefly.")
    await page.wait_for_selector(".preset[aria-pressed=true] >> text=Creative")
    await open_page(page, url)
    await open_settings(page)
    await page.get_by_role("button", name="Pirate").click()
    await page.wait_for_selector(".preset[aria-pressed=true] >> text=Pirate")
    assert await prompt.input_value() == "Answer like a pirate, Señor."

    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export all").click()
    path = await (await downloading.value).path()
    (kept,) = json.loads(path.read_text("utf-8"))["presets"]
    assert (kept["name"], kept["values"]["temperature"]) == ("Pirate", 1)
    await page.get_by_role("button", name="Copy link").click()
    link = await page.evaluate("navigator.clipboard.readText()")
    await page.get_by_role("button", name="Delete", exact=True).last.click()
    await page.wait_for_selector(".preset >> text=Pirate", state="detached")
    await page.locator("#toast").get_by_role("button", name="Undo").click()
    await page.wait_for_selector(".preset >> text=Pirate")
    await context.close()

    # Elsewhere the link shows what it would set before it does; the file needs no question.
    other = await (await browser.new_context(viewport=LAPTOP)).new_page()
    await open_page(other, link)
    assert "Answer like a pirate" in await other.inner_text("dialog.ours .quoted")
    await other.get_by_role("button", name="Use it once").click()
    assert "#" not in other.url
    await other.wait_for_function("window.presets.now().system_prompt.includes('pirate')")
    await open_settings(other)
    prompt = other.locator("#system-prompt textarea")
    assert await prompt.input_value() == "Answer like a pirate, Señor."
    assert await other.locator(".preset >> text=Pirate").count() == 0
    await other.locator(".presets input[type=file]").set_input_files(
        {"name": "p.json", "mimeType": "application/json", "buffer": json.dumps(kept).encode()}
    )
    await other.wait_for_selector(".preset >> text=Pirate", state="attached")
    await other.locator(".presets input[type=file]").set_input_files(
        {"name": "no.json", "mimeType": "application/json", "buffer": b"[1, {}"}
    )
    await other.locator("#toast", has_text="no.json holds no presets").wait_for()
    await other.context.close()


async def test_the_conversation_is_there_as_code_in_three_languages(page):
    await send(page, "It's me")
    await wait_for_status(page, "Done")
    await page.get_by_role("button", name="As code").click()
    code = page.locator("#code-panel code")
    shown = await code.inner_text()
    body = json.loads(shown.split("-d '")[1].removesuffix("'").replace("'\\''", "'"))
    assert body["messages"] == [{"role": "user", "content": "It's me"}]
    assert (body["model"], body["temperature"], body["top_p"]) == ("echo", 0.4, 0.9)
    await page.keyboard.press("ArrowRight")
    compile(await code.inner_text(), "example", "exec")
    await page.keyboard.press("ArrowRight")
    assert "await fetch(" in await code.inner_text()
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.id") == "as-code"


async def test_a_message_is_answered_side_by_side_and_one_reply_is_gone_on_with(page, service):
    await page.get_by_role("button", name="Side by side").click()
    await page.locator(".compared select").select_option(label="Precise")
    await page.locator("#composer textarea").fill("which one")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Go on with this").wait_for()
    left, right = [await pair.bounding_box() for pair in await page.locator(".pair").all()]
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    asked = [request.sampling.temperature for request in service.requests[-2:]]
    assert asked == [0.4, 0.2]
    await page.get_by_role("button", name="Go on with this").click()
    await wait_for_status(page, "It goes on from here")
    assert await page.locator(".pair").count() == 0
    assert await page.evaluate("document.activeElement.closest('#composer') !== null")
    await page.get_by_role("button", name="Side by side", exact=True).first.click()
    await page.wait_for_function("document.querySelectorAll('.pair').length === 2")
