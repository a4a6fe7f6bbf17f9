import asyncio

import pytest

from falcon_mamba_app.protocol import GenerationRequest, Message, Text, TextDelta
from falcon_mamba_app.ui.conversation.browser_copy import remembered
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers, DocumentHandlers
from falcon_mamba_app.ui.view.controls import CONTROL_NAMES, ControlValues
from falcon_mamba_app.ui.view.panel import UNKNOWN
from falcon_mamba_app.ui.view.updates import SKIP, Update, busy_html
from tests.support.echo_service import EchoService
from tests.support.page_requests import page_request
from tests.support.services import settled

PAGE = page_request("page")
CONTROLS = tuple(getattr(ControlValues(), name) for name in CONTROL_NAMES)


@pytest.fixture
async def service():
    service = EchoService()
    await service.start()
    return service


@pytest.fixture
def sessions(service):
    return opened(Sessions(service.forget))


def opened(sessions: Sessions) -> Sessions:
    """Two visitors have opened the page."""
    for page in ("page", "other"):
        sessions.of_page(page)
    return sessions


@pytest.fixture
def chat(service, sessions):
    return make_chat(service, sessions)


def make_chat(service, sessions) -> ChatHandlers:
    return ChatHandlers(service, sessions, Answerer(service, max_chars=1_000))


def texts(messages) -> list[tuple[str, str]]:
    return [(message["role"], message["text"]) for message in messages]


def tile(page, label: str) -> str:
    return next(value for name, value, _ in page["panel"]["tiles"] if name == label)


async def page_after(outputs) -> dict:
    """What the page shows after a handler: the last value each component got."""
    shown = {}
    async for update in outputs:
        shown |= {name: value for name, value in update._asdict().items() if value != SKIP}
    return shown


async def test_a_reply_is_shown_saved_and_part_of_the_next_request(chat, service, sessions):
    page = await page_after(chat.send("one two", PAGE, *CONTROLS))
    assert texts(page["transcript"]) == [("user", "one two"), ("assistant", "You said: one two")]
    assert remembered(page["saved"]).messages[1].content == "You said: one two"
    assert "Done" in page["status"]
    await page_after(chat.send("three", PAGE, *CONTROLS))
    assert [m.content for m in service.requests[-1].prompt] == [
        "one two",
        "You said: one two",
        "three",
    ]
    assert service.requests[-1].session_id == sessions.of_page("page").id


async def test_with_the_last_words_the_page_is_ready_for_the_next_message(chat):
    updates = [update async for update in chat.send("one", PAGE, *CONTROLS)]
    [last_words] = [update for update in updates if "Done" in str(update.status)]
    assert last_words.busy == busy_html(False)


async def test_what_gradio_sends_again_at_an_event_s_end_changes_nothing(chat, sessions):
    gone = page_request("nobody's")
    for outputs in (
        chat.send("one", PAGE, *CONTROLS),
        chat.send(" ", PAGE, *CONTROLS),
        chat.retry(PAGE, *CONTROLS),
        chat.undo(PAGE),
        chat.clear(PAGE),
        chat.send("two", gone, *CONTROLS),
    ):
        assert [update async for update in outputs][-1] == Update()


async def test_the_system_prompt_leads_the_request_and_not_the_transcript(chat, service):
    controls = ("Be brief.", *CONTROLS[1:])
    page = await page_after(chat.send("hi", PAGE, *controls))
    assert service.requests[-1].prompt[0] == Message("system", "Be brief.")
    assert texts(page["transcript"])[0] == ("user", "hi")


@pytest.mark.parametrize("blank", ["", "   ", "\n\n"])
async def test_a_blank_message_does_nothing(chat, service, blank):
    steps = [step async for step in chat.send(blank, PAGE, *CONTROLS)]
    assert steps == [Update()]
    assert service.requests == []


async def test_two_pages_never_see_each_other_s_messages(chat, service):
    await page_after(chat.send("the secret", PAGE, *CONTROLS))
    other = page_request("other")
    page = await page_after(chat.send("hello", other, *CONTROLS))
    assert texts(page["transcript"]) == [("user", "hello"), ("assistant", "You said: hello")]
    assert len({request.session_id for request in service.requests}) == 2


async def test_retry_asks_the_same_again_without_the_old_reply(chat, service):
    await page_after(chat.send("one", PAGE, *CONTROLS))
    page = await page_after(chat.retry(PAGE, *CONTROLS))
    assert service.requests[-1].prompt == (Message("user", "one"),)
    assert len(page["transcript"]) == 2


async def test_undo_takes_one_exchange_back_and_returns_the_text(chat):
    await page_after(chat.send("one", PAGE, *CONTROLS))
    await page_after(chat.send("two", PAGE, *CONTROLS))
    page = await page_after(chat.undo(PAGE))
    assert page["returned"] == "two"
    assert texts(page["transcript"]) == [("user", "one"), ("assistant", "You said: one")]


async def test_undo_shows_the_context_after_the_turn_before(chat, sessions):
    first = await page_after(chat.send("one", PAGE, *CONTROLS))
    await page_after(chat.send("two", PAGE, *CONTROLS))
    page = await page_after(chat.undo(PAGE))
    assert sessions.of_page("page").context_tokens == 4
    assert first["panel"]["tokens"] == page["panel"]["tokens"] == 4
    await page_after(chat.undo(PAGE))
    assert sessions.of_page("page").context_tokens is None


async def test_messages_are_shown_and_kept_as_typed(chat, sessions):
    page = await page_after(chat.send("<b>x</b>", PAGE, *CONTROLS))
    assert texts(page["transcript"])[0] == ("user", "<b>x</b>")
    assert sessions.of_page("page").messages[0].content == "<b>x</b>"


async def test_the_panel_is_current_with_the_first_text_and_at_the_end(chat):
    outputs = chat.send("SLOW one two three", PAGE, *CONTROLS)
    first = await until_text(outputs)
    assert tile(first, "Replies running") == "1 of 4"
    page = await page_after(outputs)
    assert tile(page, "Replies running") == "0 of 4"
    assert tile(page, "Speed now") == UNKNOWN


async def test_undo_and_retry_of_nothing_say_so(chat):
    assert "Nothing to undo" in (await page_after(chat.undo(PAGE)))["status"]
    assert "Nothing to retry" in (await page_after(chat.retry(PAGE, *CONTROLS)))["status"]


async def test_clear_begins_another_conversation(chat, sessions):
    await page_after(chat.send("one", PAGE, *CONTROLS))
    before = sessions.of_page("page")
    page = await page_after(chat.clear(PAGE))
    assert page["transcript"] == []
    assert remembered(page["saved"]).messages == ()
    assert sessions.of_page("page") is not before
    assert len(before.messages) == 2  # it can be called back


async def test_an_error_that_nobody_foresaw_has_an_end_on_the_page(chat, service, caplog):
    def broken():
        raise AttributeError("a secret word")

    service.stats = broken
    page = await page_after(chat.clear(PAGE))
    assert "nobody foresaw" in page["status"] and page["busy"] == busy_html(False)
    assert "AttributeError" in caplog.text and "secret" not in caplog.text


async def until_text(outputs) -> dict:
    """Go on until the reply has begun; what the page shows then."""
    async for update in outputs:
        if update.growing != SKIP and update.growing:
            return update._asdict()
    raise AssertionError("no text came")


async def test_stop_keeps_what_was_written_and_frees_the_service(chat, service, sessions):
    outputs = chat.send("SLOW LONG", PAGE, *CONTROLS)
    await until_text(outputs)
    await chat.stop(PAGE)
    page = await page_after(outputs)
    assert service.running == 0
    assert "Stopped" in page["status"]
    assert page["busy"] == busy_html(False)
    assert texts(page["transcript"])[-1][1] == sessions.of_page("page").messages[-1].content
    assert sessions.of_page("page").messages[-1].content.startswith("word")


async def test_a_page_that_vanishes_leaves_its_reply_running(chat, service, sessions):
    outputs = chat.send("SLOW " + "word " * 20, PAGE, *CONTROLS)
    await until_text(outputs)
    await outputs.aclose()
    session = sessions.of_page("page")
    assert service.running == 1
    await settled(lambda: session.turn is None)
    assert session.messages[-1].content == "You said: SLOW " + "word " * 19 + "word"


async def test_a_page_that_is_behind_in_reading_is_told_of_the_end_alone(service, sessions):
    answerer = Answerer(service, max_chars=1_000, is_behind=lambda page: True)
    chat = ChatHandlers(service, sessions, answerer)
    last, _ = [update async for update in chat.send("SLOW one two", PAGE, *CONTROLS)]
    assert texts(last.transcript)[-1][1] == "You said: SLOW one two"
    assert last.busy == busy_html(False)


async def test_a_page_the_server_does_not_know_is_told_to_open_again(chat, service):
    stranger = page_request("stranger")
    for outputs in (chat.send("hello", stranger, *CONTROLS), chat.undo(stranger)):
        page = await page_after(outputs)
        assert page.keys() == {"status"}
        assert 'data-phase="lost"' in page["status"]
    assert service.requests == []
    await chat.stop(stranger)


async def test_stopping_before_the_first_word_returns_the_message(chat, service, sessions):
    outputs = chat.send("hello", PAGE, *CONTROLS)
    await anext(outputs)
    await chat.stop(PAGE)
    page = await page_after(outputs)
    assert page["returned"] == "hello"
    assert page["transcript"] == []
    assert sessions.of_page("page").messages == []


async def test_an_error_is_a_sentence_and_the_message_is_not_lost(chat, service, sessions):
    service._status = "loading"
    page = await page_after(chat.send("hello", PAGE, *CONTROLS))
    assert page["returned"] == "hello"
    assert texts(page["transcript"]) == [
        ("notice", "The model is still loading. Your message is back below.")
    ]
    assert sessions.of_page("page").messages == []


async def test_a_notice_is_never_sent_to_the_model(chat, service):
    service._status = "loading"
    await page_after(chat.send("hello", PAGE, *CONTROLS))
    service._status = "ready"
    await page_after(chat.send("hello", PAGE, *CONTROLS))
    assert service.requests[-1].prompt == (Message("user", "hello"),)


async def test_a_reply_that_breaks_off_keeps_its_beginning(chat, sessions):
    page = await page_after(chat.send("please BREAK now", PAGE, *CONTROLS))
    assert [m.content for m in sessions.of_page("page").messages][-1] == "You said:"
    assert "broke off" in texts(page["transcript"])[-1][1]
    assert "Broken off" in page["status"]


async def test_a_retry_that_fails_keeps_the_old_reply(chat, service):
    await page_after(chat.send("one", PAGE, *CONTROLS))
    service._status = "loading"
    page = await page_after(chat.retry(PAGE, *CONTROLS))
    assert texts(page["transcript"]) == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("notice", "The model is still loading."),
    ]
    assert "returned" not in page, "the message is in the conversation still"


async def test_an_error_nobody_foresaw_is_logged_and_told_plainly(chat, service, caplog):
    async def generate(request):
        raise RuntimeError("secret detail")
        yield

    service.generate = generate
    page = await page_after(chat.send("hello", PAGE, *CONTROLS))
    assert "Something went wrong" in texts(page["transcript"])[0][1]
    assert "secret detail" not in texts(page["transcript"])[0][1]
    assert "unexpected RuntimeError at" in caplog.text
    assert "secret detail" not in caplog.text


async def test_a_message_too_long_is_refused_with_both_numbers(chat, service):
    page = await page_after(chat.send("x" * 1_001, PAGE, *CONTROLS))
    assert "1,001 characters; this page accepts at most 1,000" in texts(page["transcript"])[0][1]
    assert service.requests == []


async def test_a_parameter_out_of_range_is_refused_with_a_sentence(chat, service):
    controls = tuple(
        99.0 if name == "temperature" else value
        for name, value in zip(CONTROL_NAMES, CONTROLS, strict=True)
    )
    page = await page_after(chat.send("hi", PAGE, *controls))
    assert "Temperature is 99.0; allowed is [0, 10]" in texts(page["transcript"])[0][1]


async def test_one_session_writes_one_reply_at_a_time(chat, service):
    first = chat.send("SLOW LONG", PAGE, *CONTROLS)
    await until_text(first)
    page = await page_after(chat.send("another", PAGE, *CONTROLS))
    assert "still being written" in page["status"]
    assert "transcript" not in page
    await first.aclose()


@pytest.mark.parametrize("name", ["retry", "undo"])
async def test_while_a_reply_is_written_the_past_cannot_be_changed(chat, sessions, name):
    first = chat.send("SLOW LONG", PAGE, *CONTROLS)
    await until_text(first)
    written = list(sessions.of_page("page").messages)
    handler = getattr(chat, name)
    page = await page_after(handler(PAGE, *(CONTROLS if name == "retry" else ())))
    assert page.keys() == {"status"} and "still being written" in page["status"]
    assert sessions.of_page("page").messages == written
    await first.aclose()


async def test_a_page_that_vanishes_at_once_leaves_its_session_free(chat, sessions):
    outputs = chat.send("hello", PAGE, *CONTROLS)
    await anext(outputs)
    await outputs.aclose()
    await settled(lambda: sessions.of_page("page").turn is None)
    assert sessions.of_page("page").messages[-1].content == "You said: hello"


async def test_the_message_is_saved_in_the_browser_before_the_reply(chat):
    outputs = chat.send("SLOW hello", PAGE, *CONTROLS)
    kept = remembered((await anext(outputs)).saved)
    assert kept.messages == (Message("user", "SLOW hello"),)
    await outputs.aclose()


async def test_only_sending_empties_the_composer(chat):
    assert (await page_after(chat.send("one", PAGE, *CONTROLS)))["composer"] == ""
    assert "composer" not in await page_after(chat.retry(PAGE, *CONTROLS))
    assert "composer" not in await page_after(chat.undo(PAGE))


async def test_clearing_while_a_reply_is_written_ends_it_for_good(chat, service, sessions):
    outputs = chat.send("SLOW LONG", PAGE, *CONTROLS)
    await until_text(outputs)
    await page_after(chat.clear(PAGE))
    page = await page_after(outputs)
    assert "transcript" not in page
    assert sessions.of_page("page").messages == []
    assert service.running == 0


async def test_many_tokens_make_few_updates(service, sessions):
    async def generate(request):
        for i in range(2_000):
            yield TextDelta("x", i + 1)
            await asyncio.sleep(0)

    service.generate = generate
    chat = make_chat(service, sessions)
    steps = [update async for update in chat.send("go", PAGE, *CONTROLS)]
    shown = [update.transcript for update in steps if update.transcript != SKIP]
    assert texts(shown[-1])[-1][1] == "x" * 2_000
    assert len(shown) == 2  # the question, and the end: in between only new words are sent
    assert len(steps) < 30


@pytest.fixture
async def document(sessions):
    service = EchoService(has_chat_template=False)
    await service.start()
    return DocumentHandlers(service, sessions, Answerer(service, max_chars=1_000))


async def test_a_base_model_continues_the_text(document):
    page = await page_after(document.extend("Once upon a time ", PAGE, *CONTROLS))
    assert page["document"] == "Once upon a time and so on."


async def test_undo_takes_back_what_the_model_wrote_and_never_what_was_typed(document):
    for text in ("Once ", "Once and so on. MINE "):
        await page_after(document.extend(text, PAGE, *CONTROLS))
    typed = "Before. Once and so on. MINE and so on. After."
    once = await page_after(document.undo(typed, PAGE))
    assert once["document"] == "Before. Once and so on. MINE  After."
    twice = await page_after(document.undo(once["document"], PAGE))
    assert twice["document"] == "Before. Once  MINE  After."
    last = await page_after(document.undo(twice["document"], PAGE))
    assert last.keys() == {"status"} and "Nothing to undo" in last["status"]


async def test_retry_writes_another_continuation_into_the_text_as_it_stands(document, service):
    await page_after(document.extend("Once ", PAGE, *CONTROLS))
    page = await page_after(document.retry("At once and so on.", PAGE, *CONTROLS))
    assert page["document"] == "At once and so on."
    page = await page_after(document.retry("All mine", PAGE, *CONTROLS))
    assert page.keys() == {"status"} and "Nothing to retry" in page["status"]


async def test_somebody_at_the_page_goes_before_programs(chat, service):
    await page_after(chat.send("hello", PAGE, *CONTROLS))
    assert service.requests[-1].weight > GenerationRequest(prompt=Text("")).weight
