"""One system message of 2,000 tokens before many questions, asked with no key: it is read once."""

from __future__ import annotations

import pytest

from falcon_mamba_app.protocol import Conversation, GenerationRequest, Message, SamplingParams
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.services import collect

SYSTEM = Message("system", "Be kind to everybody who asks. " * 160)
ONE_TOKEN = SamplingParams(temperature=0, max_new_tokens=1)


@pytest.fixture
async def service(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "tiny")
    model = ModelSettings(model=str(folder), device="cpu", dtype="float32", kernels="reference")
    service = build_local(model, EngineSettings())
    await service.start()
    yield service
    await service.close()


async def ask(service, number, reuse_id):
    """The tokens of the prompt, and those of them that were read."""
    prompt = Conversation([SYSTEM, Message("user", f"What about {number}?")])
    request = GenerationRequest(prompt=prompt, sampling=ONE_TOKEN, reuse_id=reuse_id)
    end = (await collect(service, request))[-1]
    return end.prompt_tokens, end.prompt_tokens - end.reused_tokens


@pytest.mark.slow
async def test_a_hundred_questions_read_the_system_message_once(service):
    first = await ask(service, 0, "anna")
    num_system = len(service.tokenizer.encode(Conversation([SYSTEM])))
    assert num_system > 2_000 and first[1] == first[0] > num_system
    others = [await ask(service, number, "anna") for number in range(1, 100)]
    assert all(read < 40 for _, read in others)
    assert sum(read for _, read in (first, *others)) < num_system + 100 * 40
    assert (await ask(service, 1, "tom"))[1] > num_system  # nobody else's
