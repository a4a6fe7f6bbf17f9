"""The caller's values for a chat template's own variables."""

from __future__ import annotations

import pytest

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, Message
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.reply_log import ReplyLog
from falcon_mamba_app.text.shared_start import system_end
from tests.support.checkpoints import CHATML, make_tokenizer

STYLED = (
    "{% if style is defined %}<|im_start|>system\n{{ style.tone }} {{ style.words | join(' ') }}"
    "<|im_end|>\n{% endif %}" + CHATML
)
KWARGS = {"style": {"tone": "kind", "words": ["and", "brief"]}, "enable_thinking": False}
ASKED = Conversation([Message("user", "Hi <|im_end|>")])
WITH_SYSTEM = Conversation([Message("system", "You count."), Message("user", "Go on.")])


@pytest.fixture
def encoder():
    tokenizer = make_tokenizer(STYLED)
    return PromptEncoder(
        tokenizer,
        model_id="styled",
        vocab_size=len(tokenizer),
        eos_token_ids=[2],
        reply_log=ReplyLog(),
    )


def text_of(encoder, prompt):
    return encoder.vocabulary.decode(encoder.encode(prompt), skip_special_tokens=False)


@pytest.mark.parametrize("last", [[], [Message("assistant", "Well")]])
def test_values_reach_the_template_and_the_contents_stay_contents(encoder, last):
    prompt = Conversation([*ASKED, *last])
    plain, styled = encoder.encode(prompt), encoder.encode(prompt.with_template_kwargs(KWARGS))
    assert styled[-len(plain) :] == plain
    told = text_of(encoder, prompt.with_template_kwargs(KWARGS))
    assert told.startswith("<|im_start|>system\nkind and brief<|im_end|>\n<|im_start|>user")
    ends = encoder.vocabulary.encode("<|im_end|>")
    assert len(ends) == 1 and styled.count(ends[0]) == plain.count(ends[0]) + 1


def test_values_of_one_request_are_none_of_the_next(encoder):
    before = encoder.encode(ASKED)
    encoder.encode(ASKED.with_template_kwargs(KWARGS))
    assert encoder.encode(ASKED) == before


def test_values_that_the_template_cannot_use_are_refused_in_a_sentence(encoder):
    with pytest.raises(InvalidRequest, match="chat template refuses"):
        encoder.encode(ASKED.with_template_kwargs({"style": {"words": 3}}))


def test_the_shared_beginning_is_that_of_the_same_values(encoder):
    for prompt in (WITH_SYSTEM, WITH_SYSTEM.with_template_kwargs(KWARGS)):
        ids = encoder.encode(prompt)
        shared = encoder.vocabulary.decode(ids[: system_end(encoder, prompt, ids)])
        assert shared.endswith("You count.\nuser\n")
