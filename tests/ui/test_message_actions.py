"""What is done to one message, and that no word is lost by it."""

import gradio as gr
import pytest

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.events.answering import Answerer
from falcon_mamba_app.ui.events.chat_and_document import ChatHandlers
from falcon_mamba_app.ui.events.message_actions import MessageActions
from tests.support.echo_service import EchoService
from tests.support.page_requests import page_request
from tests.ui.test_chat_and_document import CONTROLS, page_after, texts, until_text

PAGE = page_request("page")


class Talk:
    """One visitor's conversation, and what is done to its messages by their number."""

    def __init__(self, service: EchoService) -> None:
        self.service = service
        sessions = Sessions(service.forget)
        self.session = sessions.of_page("page")
        answerer = Answerer(service, max_chars=1_000)
        self.chat = ChatHandlers(service, sessions, answerer)
        self.actions = MessageActions(service, sessions, answerer)

    async def say(self, *messages: str) -> dict:
        for text in messages:
            page = await page_after(self.chat.send(text, PAGE, *CONTROLS))
        return page

    async def do(self, op: str, at: int | str, text: str = "") -> dict:
        node_id = self.session.tree.path[at].id if isinstance(at, int) else at
        data = gr.EventData(None, {"op": op, "id": node_id, "text": text})
        return await page_after(self.actions.act(data, PAGE, *CONTROLS))

    @property
    def said(self) -> list[str]:
        return [message.content for message in self.session.messages]


@pytest.fixture
async def talk():
    service = EchoService()
    await service.start()
    return Talk(service)


async def test_an_edit_is_a_branch_beside_the_old_words_and_both_can_be_shown(talk):
    await talk.say("one", "two")
    page = await talk.do("edit", 0, "uno")
    assert texts(page["transcript"]) == [("user", "uno"), ("assistant", "You said: uno")]
    assert talk.service.requests[-1].prompt == (Message("user", "uno"),)
    first, second = page["transcript"][0]["branches"]
    assert page["transcript"][0]["place"] == 2
    await talk.do("show", first)
    assert talk.said == ["one", "You said: one", "two", "You said: two"]
    await talk.do("show", second)
    assert talk.said == ["uno", "You said: uno"]


async def test_a_retry_of_any_message_keeps_the_reply_that_was_there(talk):
    await talk.say("one", "two")
    page = await talk.do("retry", 1)
    assert len(talk.said) == 2 and page["transcript"][1]["place"] == 2
    await talk.do("show", page["transcript"][1]["branches"][0])
    assert talk.said[2:] == ["two", "You said: two"]


async def test_the_model_s_own_words_can_be_edited_and_are_what_it_reads_next(talk):
    await talk.say("one")
    await talk.do("edit", 1, "I said this")
    await talk.say("two")
    assert [m.content for m in talk.service.requests[-1].prompt] == ["one", "I said this", "two"]


async def test_going_back_keeps_what_followed_and_offers_the_way_on(talk):
    await talk.say("one", "two")
    page = await talk.do("back", 1)
    assert talk.said == ["one", "You said: one"]
    assert page["transcript"][-1]["later"] == 1
    await talk.say("three")
    assert talk.session.tree.place_of(talk.session.tree.path[2]) == (2, 2)
    await talk.do("back", 1)
    page = await talk.do("show", page["transcript"][-1]["next"])
    assert talk.said[2:] == ["two", "You said: two"]


async def test_branching_offers_the_next_message_to_be_said_differently(talk):
    await talk.say("one", "two")
    page = await talk.do("branch", 1)
    assert page["returned"] == "two"
    assert talk.said == ["one", "You said: one"]


async def test_a_reply_that_was_cut_goes_on_where_it_ended(talk):
    await page_after(talk.chat.send("one two three", PAGE, *_with_max_new_tokens(2)))
    assert talk.said[-1] == "You said:"
    assert talk.session.tree.head.facts.is_cut_short
    talk.service._reply_words = lambda request: [" one", "two", "three"]
    await talk.do("continue", 1)
    assert talk.said == ["one two three", "You said: one two three"]
    assert [m.role for m in talk.service.requests[-1].prompt] == ["user", "assistant"]


def _with_max_new_tokens(count: int) -> tuple:
    from falcon_mamba_app.ui.view.controls import CONTROL_NAMES

    place = CONTROL_NAMES.index("max_new_tokens")
    return (*CONTROLS[:place], count, *CONTROLS[place + 1 :])


async def test_what_is_deleted_comes_back_where_it_was(talk):
    await talk.say("one", "two")
    node_id = talk.session.tree.path[2].id
    await talk.do("delete", 2)
    assert talk.said == ["one", "You said: one"]
    await talk.do("restore", node_id)
    assert talk.said == ["one", "You said: one", "two", "You said: two"]


async def test_a_moment_keeps_its_name(talk):
    await talk.say("one")
    page = await talk.do("name", 1, "  the\nbeginning ")
    assert page["transcript"][1]["name"] == "the beginning"


async def test_undo_leaves_the_exchange_as_a_branch(talk):
    await talk.say("one", "two")
    await page_after(talk.chat.undo(PAGE))
    page = await talk.say("three")
    assert page["transcript"][2]["place"] == 2


@pytest.mark.parametrize("op", ["edit", "retry", "show", "back", "delete"])
async def test_while_a_reply_is_written_nothing_is_changed_and_that_is_said(talk, op):
    await talk.say("one")
    writing = talk.chat.send("SLOW LONG", PAGE, *CONTROLS)
    await until_text(writing)
    page = await talk.do(op, 0, "other")
    assert page.keys() == {"status"} and "still being written" in page["status"]
    await writing.aclose()
    talk.session.interrupt()


@pytest.mark.parametrize("node_id", ["msg_of_nobody", 7, None, ["a"]])
async def test_a_message_that_is_not_there_is_refused_with_a_sentence(talk, node_id):
    await talk.say("one")
    data = gr.EventData(None, {"op": "back", "id": node_id})
    page = await page_after(talk.actions.act(data, PAGE, *CONTROLS))
    assert page.keys() == {"status"} and "no longer in the conversation" in page["status"]


async def test_each_reply_says_what_it_took_and_has_the_picture_of_its_memory(talk):
    page = await talk.say("one two", "three")
    first, second = page["transcript"][1], page["transcript"][3]
    assert first["line"].startswith("4 tokens")
    assert second["line"].endswith("read 1 new, 6 remembered")
    assert first["strip"] != second["strip"]
    assert "temperature 1" in second["details"]
