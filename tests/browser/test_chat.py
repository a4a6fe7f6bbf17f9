"""The chat as its visitors use it."""

import asyncio
import threading

from falcon_mamba_app.protocol import Waiting
from falcon_mamba_app.ui.conversation.sessions import Sessions
from tests.browser.conftest import (
    LAPTOP,
    fill_for_good,
    forget_status,
    open_page,
    send,
    transcript,
    wait_for_draft,
    wait_for_status,
)
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page
from tests.support.services import settled


async def test_enter_sends_and_the_reply_appears(page):
    await send(page, "hello there")
    await wait_for_status(page, "Done")
    assert await transcript(page) == ["hello there", "You said: hello there"]
    assert await page.locator("#composer textarea").input_value() == ""


async def test_shift_enter_makes_a_new_line(page):
    composer = page.locator("#composer textarea")
    await composer.fill("one")
    await composer.press("Shift+Enter")
    await composer.type("two")
    assert await composer.input_value() == "one\ntwo"
    assert await transcript(page) == []


async def test_escape_stops_and_the_composer_is_ready_at_once(page, service):
    await send(page, "SLOW LONG")
    await page.wait_for_selector("#transcript [data-testid=bot]")
    await page.keyboard.press("Escape")
    await wait_for_status(page, "Stopped")
    await settled(lambda: service.running == 0)
    await page.wait_for_selector("#send", state="visible")
    kept = (await transcript(page))[-1]
    await send(page, "LONG SLOW too")
    await wait_for_status(page, "Writing")
    assert [m.content for m in service.requests[-1].prompt] == ["SLOW LONG", kept, "LONG SLOW too"]
    await page.keyboard.press("Escape")  # else it is written on after the test
    await wait_for_status(page, "Stopped")


async def test_the_stop_button_stops(page, service):
    await send(page, "SLOW LONG")
    await page.locator("#stop").click()
    await page.wait_for_function("document.querySelector('#send')?.offsetParent")
    await settled(lambda: service.running == 0)


async def test_a_reply_whose_tab_was_closed_gives_its_slot_back(browser):
    service = EchoService()
    with serve_page(service, alone_s=0.1) as url:
        context = await browser.new_context(viewport=LAPTOP)
        page = await context.new_page()
        await open_page(page, url)
        await send(page, "SLOW LONG")
        await page.wait_for_selector("#transcript [data-testid=bot]")
        assert service.running == 1
        await context.close()
        await settled(lambda: service.running == 0)


async def test_a_visitor_who_leaves_is_forgotten_with_their_state(browser):
    service = EchoService()
    with serve_page(service, keep_session_s=0.0) as url:
        context = await browser.new_context(viewport=LAPTOP)
        visitor = await context.new_page()
        await open_page(visitor, url)
        await send(visitor, "hello")
        await wait_for_status(visitor, "Done")
        assert service.sessions
        await context.close()
        await settled(lambda: service.sessions == {})


async def test_retry_undo_and_new_conversation_by_their_buttons(page):
    await send(page, "hello")
    await wait_for_status(page, "Done")
    await forget_status(page)
    await page.locator("#retry").click()
    await wait_for_status(page, "Done")
    assert await transcript(page) == ["hello", "You said: hello"]
    await page.locator("#undo").click()
    await wait_for_status(page, "Taken back")
    assert await transcript(page) == []
    await wait_for_draft(page, "hello")
    await page.locator("#composer textarea").press("Enter")
    await wait_for_status(page, "Done")
    await page.locator("#clear").click()
    await wait_for_status(page, "New conversation")
    assert await transcript(page) == []
    assert await page.evaluate("document.activeElement.closest('#composer') !== null")
    await page.locator("#toast").get_by_role("button", name="Undo").click()
    await wait_for_status(page, "Ready")
    assert await transcript(page) == ["hello", "You said: hello"]


async def test_editing_a_message_answers_from_there(page):
    for text in ("first", "second"):
        await send(page, text)
        await wait_for_status(page, "Done")
    await page.locator("#transcript").get_by_label("Edit").first.click()
    editor = page.locator("#transcript textarea")
    await editor.fill("changed")
    await forget_status(page)
    await page.locator("#transcript").get_by_label("Submit").click()
    await wait_for_status(page, "Done")
    assert await transcript(page) == ["changed", "You said: changed"]


async def test_an_edited_message_is_sent_and_given_up_by_key(page):
    await send(page, "first")
    await wait_for_status(page, "Done")
    edit = page.locator("#transcript .user-row").get_by_label("Edit")
    editor = page.locator("#transcript textarea")
    await edit.click()
    await editor.fill("never mind")
    await editor.press("Escape")
    await editor.wait_for(state="detached")
    assert await transcript(page) == ["first", "You said: first"]
    await edit.click()
    await editor.fill("two")
    await editor.press("Shift+Enter")
    await editor.press_sequentially("lines")
    await forget_status(page)
    await editor.press("Enter")
    await wait_for_status(page, "Done")
    assert await transcript(page) == ["two\nlines", "You said: two lines"]  # as Markdown


async def test_an_example_is_sent_with_one_click(page):
    await page.get_by_text("A short story").click()
    await wait_for_status(page, "Done")
    assert (await transcript(page))[0].startswith("Tell me a short story")


async def test_a_reload_keeps_the_conversation_and_its_session(page, service, url):
    await send(page, "remember me")
    await wait_for_status(page, "Done")
    session_id = service.requests[-1].session_id
    await open_page(page, url)
    await page.wait_for_selector("#transcript [data-testid=bot]")
    assert await transcript(page) == ["remember me", "You said: remember me"]
    await send(page, "still there?")
    await wait_for_status(page, "Done")
    assert service.requests[-1].session_id == session_id
    assert len(service.requests[-1].prompt) == 3


async def test_settings_survive_a_reload_without_a_message_sent(page, url):
    await page.get_by_role("button", name="Model behaviour").click()
    await fill_for_good(page.locator("#system-prompt textarea"), "Be brief.")
    await fill_for_good(page.get_by_label("number input for Temperature"), "1.3")
    await page.get_by_label("number input for Temperature").press("Tab")
    await page.wait_for_function("localStorage.getItem('falcon-mamba-settings')")
    await open_page(page, url)
    await page.get_by_role("button", name="Model behaviour").click()
    await page.wait_for_function(
        "document.querySelector('#system-prompt textarea')?.value == 'Be brief.'"
    )
    assert await page.get_by_label("number input for Temperature").input_value() == "1.3"
    await page.get_by_role("button", name="Reset to the model's defaults").click()
    await page.wait_for_function(
        "document.querySelector('[aria-label=\"number input for Temperature\"]')?.value == '0.4'"
    )


async def test_a_preset_sets_the_sliders(page, service):
    await page.get_by_role("button", name="Model behaviour").click()
    await page.get_by_role("button", name="Precise").click()
    await page.wait_for_function(
        "document.querySelector('[aria-label=\"number input for Temperature\"]')?.value == '0.2'"
    )
    await send(page, "hi")
    await wait_for_status(page, "Done")
    assert service.requests[-1].sampling.temperature == 0.2


async def test_two_visitors_never_see_each_other_s_conversation(page, browser, url, service):
    await send(page, "call me Ishmael")
    await wait_for_status(page, "Done")
    context = await browser.new_context(viewport=LAPTOP)
    other = await context.new_page()
    await open_page(other, url)
    assert await transcript(other) == []
    await send(other, "hello")
    await wait_for_status(other, "Done")
    assert [m.content for m in service.requests[-1].prompt] == ["hello"]
    assert "Ishmael" not in await other.content()
    await context.close()


async def test_messages_cannot_bring_scripts_into_the_page(page):
    await send(page, "<img src=x onerror=\"document.title='owned'\"> <script>1</script> text")
    await wait_for_status(page, "Done")
    assert await page.title() == "Falcon Mamba"
    assert await page.locator("#transcript script").count() == 0
    assert await page.locator("#transcript [onerror]").count() == 0


async def test_an_error_returns_the_message_and_a_broken_reply_stays(page):
    await send(page, "please BREAK now")
    await wait_for_status(page, "Broken off")
    shown = await transcript(page)
    assert "The device failed" in shown[-1]
    assert await page.locator("#send").is_enabled()


class FullService(EchoService):
    """Lets everybody wait in line, for good."""

    async def generate(self, request):
        yield Waiting(1)
        await asyncio.Event().wait()


async def test_a_message_that_comes_back_is_never_glued_to_what_was_written_meanwhile(browser):
    with serve_page(FullService()) as url:
        context = await browser.new_context(viewport=LAPTOP)
        page = await context.new_page()
        await open_page(page, url)
        composer = page.locator("#composer textarea")
        for _ in range(2):  # the same message may come back again
            await send(page, "hello")
            await wait_for_status(page, "Waiting in line")
            await composer.fill("my draft")
            await composer.press("Escape")
            await wait_for_status(page, "Stopped")
            await page.locator(".offered").get_by_text("hello").wait_for()
            assert await composer.input_value() == "my draft"
            assert await transcript(page) == []
        await page.get_by_role("button", name="Put it in the box").click()
        assert await composer.input_value() == "hello"
        assert await page.locator(".offered").inner_text() == "my draft\nPut it in the box\nDismiss"
        await context.close()


async def test_the_end_of_an_event_changes_nothing_that_came_after_its_last_update(
    browser, monkeypatch
):
    """The page's first event ended late on a busy machine, and Stop was taken back with it."""
    may_end, save = threading.Event(), Sessions.save

    async def slow_save(sessions: Sessions, page: str) -> None:
        while not may_end.is_set():
            await asyncio.sleep(0.01)
        await save(sessions, page)

    monkeypatch.setattr(Sessions, "save", slow_save)
    with serve_page(FullService()) as url:
        context = await browser.new_context(viewport=LAPTOP)
        page = await context.new_page()
        await open_page(page, url)
        await send(page, "hello")
        await wait_for_status(page, "Waiting in line")
        may_end.set()
        await page.evaluate("window.page.tell('sidebar', 'look', { words: 'after that end' })")
        await page.wait_for_function("window.parts.sidebar.props.value.words === 'after that end'")
        await page.keyboard.press("Escape")
        await wait_for_status(page, "Stopped")
        await context.close()


async def test_a_message_that_waits_for_a_reply_of_a_moment_is_sent(page):
    await page.locator("#composer textarea").fill("hello")
    await page.evaluate("""() => {
        const stop = Object.assign(document.createElement("button"), { id: "stop" });
        document.body.append(stop);
        const enter = new KeyboardEvent("keydown", { key: "Enter", bubbles: true });
        document.querySelector("#composer textarea").dispatchEvent(enter);
        stop.remove();
    }""")
    await wait_for_status(page, "Done")
    assert await transcript(page) == ["hello", "You said: hello"]


async def test_waiting_in_line_and_the_figures_are_shown(page, service):
    service.holds_line = True
    await send(page, "QUEUE SLOW " + "word " * 30)
    await wait_for_status(page, "Waiting in line")
    service.holds_line = False
    await wait_for_status(page, "Writing")
    await page.wait_for_function(
        "document.querySelector('.tile.accent dd').innerText.includes('tok/s')"
    )
    await wait_for_status(page, "Done")
    await page.locator(".card.memory", has_text="66 tokens are in it").wait_for()
