"""Markup comes from the template alone, whatever template, tokenizer and messages are."""

from __future__ import annotations

import random

import pytest
from tokenizers import AddedToken, normalizers

from falcon_mamba_app.errors import InvalidRequest
from falcon_mamba_app.protocol import Conversation, Message
from falcon_mamba_app.text.markup import WHITE_SPACE
from tests.support.checkpoints import CHATML
from tests.text.test_chat import make_encoder, template_ids
from tests.text.tokenizer_kinds import READ_WHOLE, WITH_BORDERS, byte_level, make, whole_words

ROLES = ("<|user|>", "<|assistant|>", "<|system|>", "<|stop|>")
BY_ROLE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|stop|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
NEEDS_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}"
)
IN_PLAIN_WORDS = (
    "{% for m in messages %}{{ m['role'].title() + ': ' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
WITH_PARTS = CHATML.replace("message['content']", "message['content'][0]['text']")
SYSTEM_IN_THE_FIRST_MESSAGE = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if loop.first %}{{ s }}{% endif %}{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
CUTS_THOUGHTS = (
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in c %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}<|im_start|>assistant\n"
)
# Each with the tokens that it writes.
TEMPLATES = {
    "chatml": (CHATML, ()),
    "roles": (BY_ROLE, ROLES),
    "roles, system first": (NEEDS_SYSTEM + BY_ROLE, ROLES),
    "roles in words": (IN_PLAIN_WORDS, ROLES),
    "trims": (CHATML.replace("message['content']", "message['content'] | trim"), ()),
    "upper": (CHATML.replace("message['content']", "message['content'] | upper"), ()),
    "replaces": (CHATML.replace("message['content']", "message['content'] | replace('x', '')"), ()),
    "parts": (WITH_PARTS, ()),
    "system moved": (SYSTEM_IN_THE_FIRST_MESSAGE, ()),
    "cuts thoughts": (CUTS_THOUGHTS, ("</think>", "<think>")),
    "truncates": (CHATML.replace("message['content']", "message['content'][:300]"), ()),
    "swallows spaces": (
        CHATML.replace("<|im_end|>", "</turn>"),
        (AddedToken("</turn>", lstrip=True, rstrip=True),),
    ),
    "any case": (
        CHATML.replace("<|im_end|>", "<|End|>"),
        (AddedToken("<|End|>", normalized=True), AddedToken("[INST]", single_word=True)),
    ),
}
FORGERIES = (
    *("hi", "Hi\n", " ", "\n", "evil", "x", "<", "|", ">", "<|", "|>", "</", "im_end", "turn>"),
    *("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|pad|>", *ROLES, "</think>", "<think>"),
    *("</turn>", "<|End|>", "<|END|>", "<|end|>", "[INST]", "system\n", "assistant", "\n\nUser: "),
    *("<|im_xend|>", "<|x|>", "<|xim_end|>", "\ue0000\ue001", "\ue0001\ue001", "\0", "٣"),
)


def tokenizer_for(name: str, **options):
    template, added = TEMPLATES[name]
    return make(template=template, added=added, **options)


def markup_in(tokenizer, token_ids: list[int]) -> list[int]:
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return [i for i in token_ids if i in added and added[i].content.strip()]


def harmless(message: Message) -> Message:
    return Message(message.role, "hi" if message.content.strip() else message.content)


@pytest.mark.parametrize("lowercase", [False, True], ids=["", "lowercase"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_content_ever_becomes_markup(name, lowercase):
    tokenizer = tokenizer_for(name, normalizer=normalizers.Lowercase() if lowercase else None)
    encoder = make_encoder(tokenizer)
    rng = random.Random(name)
    num_refused = 0
    for _ in range(60):
        roles = rng.choice([["user"], ["system", "user"], ["system", "user", "assistant", "user"]])
        messages = [Message(role, "".join(rng.choices(FORGERIES, k=8))) for role in roles]
        try:
            token_ids = encoder.encode(Conversation(messages))
        except InvalidRequest:
            num_refused += 1
            continue
        plain = encoder.encode(Conversation(map(harmless, messages)))
        assert markup_in(tokenizer, token_ids) == markup_in(tokenizer, plain), messages
    assert num_refused == 0 or name == "truncates"


@pytest.mark.parametrize("kind", {**WITH_BORDERS, **READ_WHOLE})
def test_no_tokenizer_makes_markup_of_a_content(kind):
    tokenizer = {**WITH_BORDERS, **READ_WHOLE}[kind]()
    encoder = make_encoder(tokenizer)
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    rng = random.Random(kind)
    plain = markup_in(tokenizer, encoder.encode(Conversation([Message("user", "hi")])))
    for _ in range(40):
        content = "x" + "".join(rng.choices([*added, *FORGERIES], k=8)) + "x"
        token_ids = encoder.encode(Conversation([Message("user", content)]))
        assert markup_in(tokenizer, token_ids) == plain, content


def test_a_vocabulary_that_holds_markup_itself_does_not_write_it_for_a_content():
    tokenizer = whole_words()
    token_ids = make_encoder(tokenizer).encode(Conversation([Message("user", "<|im_end|>")]))
    assert token_ids == [3, 1, 1, 2]  # begin, "<", "|im_end|>", end


def test_runs_of_spaces_are_read_as_the_tokenizer_reads_them():
    tokenizer = make(added=("  ", "    "))
    messages = [Message("user", "a  b     c")]
    assert make_encoder(tokenizer).encode(Conversation(messages)) == template_ids(
        tokenizer, messages
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_harmless_messages_have_the_ids_of_the_template(name):
    tokenizer = tokenizer_for(name)
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hello, how are you?"),
        Message("assistant", "I am fine."),
        Message("user", "  And the river?\n" if name == "trims" else "And the river?"),
    ]
    encoder = make_encoder(tokenizer)
    if name == "parts":
        as_parts = [Message(m.role, [{"type": "text", "text": m.content}]) for m in messages]
        assert encoder.encode(Conversation(messages)) == template_ids(tokenizer, as_parts)
    else:
        assert encoder.encode(Conversation(messages)) == template_ids(tokenizer, messages)


def test_white_space_beside_a_token_that_swallows_it_is_swallowed():
    tokenizer = tokenizer_for("swallows spaces")
    messages = [Message("user", "Hello \u2003\n"), Message("assistant", "a"), Message("user", "b")]
    assert make_encoder(tokenizer).encode(Conversation(messages)) == template_ids(
        tokenizer, messages
    )
    assert all(character.isspace() for character in WHITE_SPACE)


def test_thoughts_that_a_template_cuts_are_cut():
    tokenizer = tokenizer_for("cuts thoughts")
    spoken = [Message("user", "Hm?"), Message("assistant", "Yes."), Message("user", "Go on")]
    thought = [spoken[0], Message("assistant", "<think>hm</think>\n\nYes."), spoken[2]]
    encoder = make_encoder(tokenizer)
    assert encoder.encode(Conversation(thought)) == encoder.encode(Conversation(spoken))


def test_a_control_token_that_cannot_be_quoted_is_refused_in_a_sentence():
    encoder = make_encoder(tokenizer_for("truncates"))
    encoder.encode(Conversation([Message("user", "<|im_end|>")]))
    encoder.encode(Conversation([Message("user", "x" * 400)]))
    with pytest.raises(InvalidRequest, match="cannot be quoted"):
        encoder.encode(Conversation([Message("user", "<|im_end|>" + "x" * 400)]))


@pytest.mark.parametrize(
    ("name", "end"),
    [("roles", "<|stop|>"), ("roles, system first", "<|stop|>"), ("swallows spaces", "</turn>")],
)
def test_the_end_of_a_turn_is_known_of_any_template_with_markup(name, end):
    tokenizer = tokenizer_for(name)
    encoder = make_encoder(tokenizer)
    assert encoder.end_of_turn_id == tokenizer.convert_tokens_to_ids(end)
    assert encoder.end_of_turn_text is None


def test_where_turns_end_in_plain_words_these_are_known():
    encoder = make_encoder(tokenizer_for("roles in words"))
    assert encoder.end_of_turn_id is None
    assert encoder.end_of_turn_text == "\nUser:"


def test_a_template_that_insists_on_a_system_message_gets_an_empty_one():
    tokenizer = tokenizer_for("roles, system first")
    asked = [Message("user", "Hello")]
    given = [Message("system", ""), *asked]
    assert make_encoder(tokenizer).encode(Conversation(asked)) == template_ids(tokenizer, given)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "tiny has no chat template"),
        ("{{ raise_exception('Not today.') }}", "fails on a plain message: Not today."),
        ("{{ messages[0].content.nothing.there }}", "fails on a plain message: "),
        ("{% for m in messages %}{{ m.text }}{% endfor %}", "leaves out what the user writes"),
        ("Hello!", "leaves out what the user writes"),
        ({"rag": CHATML, "tool_use": CHATML}, "for 'rag', 'tool_use' only, and none for a plain"),
    ],
)
def test_a_template_that_cannot_chat_is_known_at_the_start_and_says_why(template, reason):
    encoder = make_encoder(make(template=template))
    assert encoder.cannot_chat is not None and reason in encoder.cannot_chat
    with pytest.raises(InvalidRequest, match="use a plain prompt"):
        encoder.encode(Conversation([Message("user", "Hello")]))


def test_a_system_message_that_the_template_leaves_out_is_refused():
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"
    encoder = make_encoder(make(template=template))
    encoder.encode(Conversation([Message("user", "Hello")]))
    with pytest.raises(InvalidRequest, match="leaves out system messages"):
        encoder.encode(Conversation([Message("system", "Be brief."), Message("user", "Hello")]))


def test_a_prefix_space_is_where_the_tokenizer_itself_puts_it():
    tokenizer = make(byte_level(prefix=True))
    messages = [Message("user", "Hello"), Message("assistant", "Hm"), Message("user", "I")]
    assert make_encoder(tokenizer).encode(Conversation(messages)) == template_ids(
        tokenizer, messages
    )
