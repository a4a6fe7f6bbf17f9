"""Ids of texts and conversations over HTTP, as generation reads them."""

from __future__ import annotations

import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.protocol import Conversation, Message
from falcon_mamba_app.text.chat import PromptEncoder
from falcon_mamba_app.text.reply_log import ReplyLog
from falcon_mamba_app.text.tokens import Tokens
from tests.support.api_fixtures import in_process
from tests.support.checkpoints import make_tiny_checkpoint, make_tokenizer
from tests.support.echo_service import EchoService

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <|im_end|>"},
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    tokenizer = make_tokenizer()
    encoder = PromptEncoder(
        tokenizer,
        model_id="tiny",
        vocab_size=len(tokenizer),
        eos_token_ids=[2],
        reply_log=ReplyLog(),
    )
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("tokens") / "tiny")
    return Tokens(encoder, folder, max_tokens=1_000)


@pytest.fixture
async def client(tokens):
    service = EchoService()
    service.tokenizer = tokens
    await service.start()
    async with in_process(create_api(service)) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_a_text_goes_to_ids_and_back(client, prefix):
    text = "<|im_start|>user\nnaïve 🙂<|im_end|>"
    body = {"prompt": text, "return_token_strs": True, "add_special_tokens": True, "odd": None}
    told = (await client.post(f"{prefix}/tokenize", json=body)).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 20_000
    back = (await client.post(f"{prefix}/detokenize", json={"tokens": told["tokens"]})).json()
    assert back == {"prompt": text}


async def test_a_conversation_is_counted_as_it_would_be_read(client, tokens):
    told = (await client.post("/tokenize", json={"messages": MESSAGES})).json()
    messages = Conversation(Message(m["role"], m["content"]) for m in MESSAGES)
    assert told["tokens"] == tokens.encode(messages)
    assert told["token_strs"] is None


async def test_what_an_evaluator_looks_for_is_told(client):
    told = (await client.get("/tokenizer_info")).json()
    assert {"eos_token", "bos_token", "pad_token", "chat_template"} <= told.keys()
    assert "im_start" in told["chat_template"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}),
        ("/tokenize", {"prompt": 5}),
        ("/tokenize", {"prompt": "a", "odd": 1}),
        ("/tokenize", {"prompt": "word " * 2_000}),
        ("/tokenize", {"prompt": "a", "add_special_tokens": False}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [99_999]}),
        ("/detokenize", {"tokens": "abc"}),
    ],
)
async def test_what_cannot_be_tokenised_is_refused_in_a_sentence(client, path, body):
    answer = await client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_behind_another_server_that_one_is_asked(client):
    service = EchoService()
    await service.start()
    async with in_process(create_api(service, api_keys=("key",))) as other:
        assert (await other.get("/tokenizer_info")).status_code == 401
        answer = await other.get("/tokenizer_info", headers={"authorization": "Bearer key"})
        assert "--backend-url" in answer.json()["error"]["message"]
        assert (
            await other.get("/tokenize", headers={"authorization": "Bearer key"})
        ).status_code == 405


async def test_a_prompt_that_is_too_long_is_refused_in_openais_words(client):
    """By these words clients know to try again with less."""
    answer = await client.post("/tokenize", json={"prompt": "word " * 2_000})
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 1000 tokens")
