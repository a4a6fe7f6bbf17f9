"""The public front without a server: what it answers is what the service answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from falcon_mamba_app.engine.events import Ended
from falcon_mamba_app.engine.sequence import Sequence
from falcon_mamba_app.errors import InvalidRequest, NotFound
from falcon_mamba_app.offline import OfflineModel
from falcon_mamba_app.protocol import Conversation, GenerationRequest, Message, TextDelta
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint

GREEDY = {"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(make_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def model(folder):
    return OfflineModel(folder, device="cpu", dtype="float32", kernels="reference")


async def test_it_answers_as_the_service_does(model, folder):
    asked = ModelSettings(model=folder, device="cpu", dtype="float32", kernels="reference")
    service = build_local(asked, EngineSettings())
    await service.start()
    try:
        prompt = Conversation([Message("user", "Hello river")])
        sampling = replace(model.info.default_sampling, **GREEDY)
        request = GenerationRequest(prompt=prompt, sampling=sampling)
        events = [event async for event in service.generate(request)]
    finally:
        await service.close()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert model.generate([{"role": "user", "content": "Hello river"}], **GREEDY) == [text]


def test_several_prompts_together_are_each_alone(model):
    prompts = ["one two", "three", "four five six"]
    assert model.generate(prompts, **GREEDY) == [
        model.generate(prompt, **GREEDY)[0] for prompt in prompts
    ]


def test_the_pieces_of_a_stream_are_the_reply_and_a_stream_may_be_left(model):
    (whole,) = model.generate("one two", **GREEDY)
    assert "".join(model.stream("one two", **GREEDY)) == whole
    stream = model.stream("one two", **{**GREEDY, "max_new_tokens": 500})
    next(stream)
    stream.close()
    assert model.engine.pool.num_free == model.engine.pool.num_slots - 1


def test_a_stop_string_ends_a_reply_before_it(model):
    (whole,) = model.generate("one two", **GREEDY)
    stop = whole[len(whole) // 2 :][:2]
    (cut,) = model.generate("one two", stop=(stop,), **GREEDY)
    assert cut == whole[: whole.index(stop)]


def test_a_conversation_is_carried_undone_saved_and_opened_again(model):
    chat = model.chat("Be brief.")
    first = chat.send("Hello river", **GREEDY)
    memory, messages = chat.save(), list(chat.messages)
    second = chat.send("And then", **GREEDY)
    again = model.chat()
    again.load(memory, messages)
    assert again.send("And then", **GREEDY) == second
    chat.undo()
    assert chat.messages == messages
    assert chat.send("And then", **GREEDY) == second
    assert model.chat("Be brief.").send("Hello river", **GREEDY) == first


def test_what_is_wrong_is_said(model):
    with pytest.raises(NotFound, match="no state yet"):
        model.chat().save()
    with pytest.raises(InvalidRequest, match="temperature is -1"):
        model.generate("x", temperature=-1)
    with pytest.raises(InvalidRequest, match="no saved state"):
        model.load_state("s", b"nonsense")


def test_the_engines_own_level_is_there_too(model):
    sampling = model.info.default_sampling
    seq = Sequence(seq_id=10_000, prompt_token_ids=[5, 6, 7], sampling=sampling, seed=1)
    assert any(isinstance(event, Ended) for event in model.run([seq]))
    assert seq.output_token_ids
