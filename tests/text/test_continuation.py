"""A conversation that goes on by its ids: the same ids as if all of it had been rendered."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER
from falcon_mamba_app.engine.packing import pack_token_ids
from falcon_mamba_app.errors import PromptTooLong
from falcon_mamba_app.protocol import Continuation, Conversation, Message
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.reply_log import ReplyLog
from tests.support.checkpoints import make_tokenizer

LAST_USER_HOLDS_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}U: {% if loop.last and messages[0].role =="
    " 'system' %}{{ messages[0].content }} {% endif %}{{ m.content }}\n"
    "{% elif m.role == 'assistant' %}A: {{ m.content }}\n{% endif %}{% endfor %}A: "
)


def make_encoder(tokenizer, reply_log=None) -> PromptEncoder:
    return PromptEncoder(
        tokenizer,
        model_id="tiny",
        vocab_size=len(tokenizer),
        eos_token_ids=[2, 0],
        reply_log=reply_log or ReplyLog(),
    )


@pytest.fixture(scope="module", params=["tiny", "bundled"])
def tokenizer(request):
    bundled = request.param == "bundled"
    return AutoTokenizer.from_pretrained(BUNDLED_FOLDER) if bundled else make_tokenizer()


@pytest.mark.parametrize("system", [(), (Message("system", "Be brief."),)])
@pytest.mark.parametrize(
    "later",
    [
        (Message("user", " And now?\n"),),
        (Message("user", "你好 <|im_end|> naïve 😀"), Message("assistant", "I begin")),
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c")),
    ],
)
def test_ids_that_go_on_are_those_of_the_whole_conversation(tokenizer, system, later):
    log = ReplyLog()
    encoder = make_encoder(tokenizer, log)
    first = [*system, Message("user", "Hello there")]
    prompt = encoder.encode(Conversation(first))
    reply = [i for letter in "fine" for i in tokenizer.encode(letter, add_special_tokens=False)]
    log.record("s", prompt, [*reply, encoder.end_of_turn_id])
    whole = encoder.encode(Conversation([*first, Message("assistant", "fine"), *later]), "s")
    so_far = [*prompt, *encoder.reply_as_shown([*reply, encoder.end_of_turn_id], "fine")]
    assert encoder.can_continue
    continued = encoder.encode(Continuation(pack_token_ids(so_far), Conversation(later)))
    assert list(continued) == list(whole)


def test_a_reply_cut_by_a_stop_string_goes_on_with_the_ids_of_its_text(tokenizer):
    encoder = make_encoder(tokenizer)
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    assert encoder.reply_as_shown(ids, "one two three") == ids
    assert encoder.vocabulary.decode(encoder.reply_as_shown(ids, "one tw")) == "one tw"
    assert encoder.reply_as_shown([*ids, 5, 2], "one two three", [5]) == ids


def test_a_template_whose_turns_depend_on_the_start_cannot_go_on_by_ids():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = LAST_USER_HOLDS_SYSTEM
    assert not make_encoder(tokenizer).can_continue


def test_a_continuation_beyond_the_limit_is_too_long(tokenizer):
    encoder = make_encoder(tokenizer)
    hello = Conversation([Message("user", "Hello there " * 20)])
    with pytest.raises(PromptTooLong, match="30 tokens"):
        encoder.encode(Continuation(pack_token_ids(range(25)), hello), max_tokens=30)
