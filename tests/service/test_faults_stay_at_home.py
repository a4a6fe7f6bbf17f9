"""No input ends the engine: whatever a tokenizer, a prompt or a parameter brings ends at
its own request, and a plain request beside it is answered as if it were alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from contextlib import aclosing
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from falcon_mamba_app.errors import EngineFailure, FalconMambaError, InvalidRequest
from falcon_mamba_app.protocol import (
    Conversation,
    Finished,
    GenerationRequest,
    Message,
    SamplingParams,
    Text,
    TokenIds,
)
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.service.local.service import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from tests.support.checkpoints import CHATML, make_tiny_checkpoint
from tests.support.services import collect, reply_text

POISON = 300  # a token whose embedding is no number
PLAIN = GenerationRequest(
    prompt=Text("The river carries"),
    sampling=SamplingParams(temperature=0.0, max_new_tokens=6, ignore_eos=True, logprobs=1),
)


def odd_checkpoint(folder: Path, template: str = CHATML) -> Path:
    """Added tokens that the table has no rows for, and a row that is no number."""
    make_tiny_checkpoint(folder, tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["foo_bar"])
    tokenizer.add_tokens(["<|eot|>"], special_tokens=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["backbone.embeddings.weight"][POISON] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_service(folder: Path) -> LocalService:
    model = ModelSettings(model=str(folder), device="cpu", dtype="float32", kernels="reference")
    return build_local(model, EngineSettings(max_running=4, max_waiting=100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return odd_checkpoint(tmp_path_factory.mktemp("odd"))


@pytest.fixture
async def service(folder):
    service = make_service(folder)
    await service.start()
    yield service
    await service.close()


def user(text: str) -> Conversation:
    return Conversation([Message("user", text)])


async def test_a_token_without_an_embedding_is_refused_by_its_name(service):
    with pytest.raises(InvalidRequest, match="'foo_bar', token 444 of the tokenizer") as caught:
        await collect(service, GenerationRequest(prompt=Text("a foo_bar b")))
    assert caught.value.param == "prompt"
    assert service.stats().status == "ready"


async def test_a_message_that_spells_such_a_token_is_read_letter_by_letter(service):
    token_ids = service._encoder.encode(user("parse foo_bar now"))
    assert max(token_ids) < 444


def test_a_template_without_a_form_for_a_plain_chat_makes_a_model_that_continues_texts(tmp_path):
    folder = odd_checkpoint(tmp_path / "named")
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    named = {"chat_template": [{"name": "rag", "template": CHATML}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    model = make_service(folder).stats().model
    assert not model.has_chat_template
    assert model.cannot_chat == "named has chat templates for 'rag' only, and none for a plain chat"


async def test_a_template_that_writes_such_a_token_is_refused_at_each_request(tmp_path, caplog):
    folder = odd_checkpoint(tmp_path / "template", CHATML.replace("<|im_end|>", "<|eot|>"))
    with caplog.at_level(logging.WARNING):
        service = make_service(folder)
    assert "2 tokens beyond the model's 444, 'foo_bar' (id 444) first" in caplog.text
    await service.start()
    with pytest.raises(InvalidRequest, match=r"'<\|eot\|>', token 445"):
        await collect(service, GenerationRequest(prompt=user("Hello")))
    assert isinstance((await collect(service, PLAIN))[-1], Finished)
    await service.close()


async def test_an_encoder_that_breaks_down_refuses_the_prompt(service, monkeypatch):
    class PanicException(BaseException):
        """As the tokenizer's Rust code panics."""

    for error in (KeyError("x"), RecursionError(), PanicException("index out of bounds")):

        def broken(*args, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(service._encoder, "encode", broken)
            with pytest.raises(InvalidRequest, match=type(error).__name__):
                await collect(service, PLAIN)
    assert isinstance((await collect(service, PLAIN))[-1], Finished)


PIECES = ["foo_bar", "<|eot|>", "<|im_end|>", "\ud83d", "\x00", "\ufeff", "‮", "😀", "a" * 3_000]
PIECES += ["", " ", "\r\n", "{{ 7 }}", "The river", "名", "́" * 50, '"\\', "<|im_start|>system\n"]
IDS = [0, 1, 2, 3, 17, 443, POISON, POISON, 444, 445, -1, 2**31, 2**63, 2**80]
NUMBERS = [0, 1, -1, 0.01, 0.5, 1.0, 2.0, 10.0, 1e-30, 1e308, math.nan, math.inf, True, 2**70]


def odd_prompt(rng: random.Random) -> Text | TokenIds | Conversation:
    text = "".join(rng.choices(PIECES, k=rng.randint(0, 4)))
    kind = rng.randrange(3)
    if kind == 0:
        return Text(text)
    if kind == 1:
        return TokenIds(rng.choices(IDS[: rng.choice([7, 14])], k=rng.randint(0, 9)))
    roles = rng.choices(["user", "assistant", "system"], k=rng.randint(0, 3))
    return Conversation([*(Message(role, text) for role in roles), Message("user", text)])


def odd_sampling(rng: random.Random) -> SamplingParams:
    names = ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty"]
    options = {name: rng.choice(NUMBERS) for name in rng.sample(names, rng.randint(0, 2))}
    if rng.random() < 0.5:
        options = {"temperature": 1e-30, "repetition_penalty": rng.choice([0.01, 10.0])}
    return SamplingParams(
        **options,
        frequency_penalty=rng.choice([0.0, 2.0, -2.0]),
        top_k=rng.choice([0, 1, 443, 444, 10_000, 2**31 - 1]),
        seed=rng.choice([None, 0, -(2**63), 2**63 - 1]),
        stop=tuple(rng.sample(["\ufffd", "e", "\n", "\ud83d", "x" * 900], rng.randint(0, 2))),
        max_new_tokens=rng.choice([0, 1, 3, 6]),
        logprobs=rng.choice([None, None, 0, 20]),
        ignore_eos=rng.random() < 0.5,
    )


async def odd_request(service: LocalService, rng: random.Random) -> str:
    """Its outcome: "answered", "cancelled", or the error's name."""
    session_id = rng.choice([None, "a", "b", "\ud83d"])
    try:
        request = GenerationRequest(
            prompt=odd_prompt(rng),
            sampling=odd_sampling(rng),
            session_id=session_id,
            score_prompt=rng.choice([None, None, None, 0, 20]),
        )
        async with aclosing(service.generate(request)) as stream:
            async for _ in stream:
                if rng.random() < 0.02:
                    return "cancelled"
        if session_id is not None and rng.random() < 0.3:
            await odd_state(service, session_id, rng)
    except FalconMambaError as error:
        assert not isinstance(error, EngineFailure), error
        return type(error).__name__
    return "answered"


async def odd_state(service: LocalService, session_id: str, rng: random.Random) -> None:
    """A session's memory comes back damaged, or is dropped."""
    data = bytearray(await service.export_state(session_id))
    for _ in range(rng.choice([0, 1, 30])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    service.forget(session_id)
    await service.import_state(session_id, bytes(data))


async def test_whatever_others_send_a_plain_request_beside_them_is_answered_as_if_alone(service):
    undisturbed = await collect(service, PLAIN)
    rng, outcomes = random.Random(11), []
    for _ in range(15):
        odd = [odd_request(service, random.Random(rng.random())) for _ in range(6)]
        plain, *others = await asyncio.gather(collect(service, PLAIN), *odd)
        assert reply_text(plain) == reply_text(undisturbed)
        outcomes += others
    assert service.stats().status == "ready" and service.stats().running == 0
    # Or the requests would not be odd enough, or none of them would reach the engine.
    for outcome in ("answered", "cancelled", "InvalidRequest", "ReplyFailure"):
        assert outcomes.count(outcome) > 2, json.dumps(sorted(outcomes))
