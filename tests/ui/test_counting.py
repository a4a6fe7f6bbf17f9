"""The count of a text before it is sent."""

from dataclasses import replace

import gradio as gr
import pytest

from falcon_mamba_app.protocol import Message
from falcon_mamba_app.ui.conversation.exact_ids import digest
from falcon_mamba_app.ui.conversation.sessions import Sessions
from falcon_mamba_app.ui.conversation.tree import Facts
from falcon_mamba_app.ui.events.counting import Counting
from tests.support.echo_service import EchoService
from tests.support.page_requests import page_request

PAGE = page_request("page")


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, prompt):
        return prompt.split()


@pytest.fixture
async def counting():
    service = EchoService()
    await service.start()
    service.tokenizer = Words()
    return Counting(service, Sessions(service.forget), max_message_chars=50_000)


async def count(counting, text) -> dict:
    return await counting.count(gr.EventData(None, {"text": text, "asked": 7}), PAGE)


async def test_a_text_is_counted_in_the_models_own_tokens(counting):
    assert await count(counting, "a b c") == {"text": "3 tokens", "warns": False, "asked": 7}


async def test_beyond_the_training_it_says_how_far_and_that_all_is_read(counting):
    shown = await count(counting, "word " * 7_680)  # the model was trained on 768
    assert shown["warns"]
    assert "7,680 tokens" in shown["text"] and "10 times" in shown["text"]


async def test_a_text_that_takes_long_to_read_says_how_long_before_it_is_sent(
    counting, monkeypatch
):
    """At the server's speed, until a reply of this conversation has shown one."""
    stats = replace(counting._service.stats(), reading_tokens_per_s=12.5)
    monkeypatch.setattr(counting._service, "stats", lambda: stats)
    assert (await count(counting, "word " * 20))["text"] == "20 tokens"
    assert (await count(counting, "word " * 500))["text"] == "500 tokens, read in about 40 s"
    long = await count(counting, "word " * 7_680)
    assert long["text"].startswith(
        "7,680 tokens, read in about 10 min: with what was said 10 times"
    )
    session = counting._sessions.of_page("page")
    session.tree.head = session.tree.add(None, Message("assistant", "Yes"))
    session.tree.head.facts = Facts(prompt_tokens=600, reused_tokens=100, prefill_s=50.0)
    assert (await count(counting, "word " * 500))["text"] == "500 tokens, read in about 50 s"


async def test_more_than_is_accepted_is_said_with_both_numbers(counting):
    shown = await count(counting, "x" * 50_001)
    assert shown["warns"] and "50,001 characters" in shown["text"] and "50,000" in shown["text"]


async def test_without_a_tokenizer_here_nothing_is_said(counting):
    counting._service.tokenizer = None
    assert await count(counting, "a b c") == {"asked": 7}


async def test_counting_begins_no_conversation(counting):
    """A page that the server has forgotten is told so when it sends, and opens again."""
    await count(counting, "a b c")
    assert len(counting._sessions) == 0


async def test_another_system_prompt_costs_a_reading_of_all_and_the_old_one_nothing(counting):
    session = counting._sessions.of_page("page")
    facts = Facts(
        context_tokens=6_000,
        prompt_tokens=600,
        reused_tokens=100,
        prefill_s=0.5,
        system=digest("Be kind."),
    )
    session.tree.head = session.tree.add(None, Message("assistant", "Yes"))

    async def said(text) -> str:
        return (await counting.system(gr.EventData(None, {"text": text}), PAGE))["text"]

    assert await said("Be brief.") == ""  # nothing is known of this reply
    session.tree.head.facts = facts
    assert "6,000 tokens, in about 6 s" in await said("Be brief.")
    assert await said(" Be kind.\n") == ""
    session.tree.head.facts = replace(facts, prefill_s=None)  # the speed is not known
    assert "6,000 tokens." in await said("Be brief.")
    session.tree.head = None
    assert await said("Be brief.") == ""
