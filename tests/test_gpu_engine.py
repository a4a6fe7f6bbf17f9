"""The engine on a GPU (graphs, looking ahead, copies beside it) against the engine on the CPU."""

from __future__ import annotations

import random

import pytest
import torch

from falcon_mamba_app.engine.engine import Admitted
from falcon_mamba_app.ops.triton_kernels import TRITON
from tests.checkpoints import make_model
from tests.engine_fixtures import (
    finish,
    generate,
    make_engine,
    make_sequence,
    ours,
    random_prompt,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(scope="module")
def on_cpu():
    return ours(make_model("falcon_mamba"))


@pytest.fixture(scope="module")
def on_gpu():
    model = ours(make_model("falcon_mamba").to("cuda"), TRITON)
    assert model.device.type == "cuda"
    return model


@pytest.mark.parametrize("length", [1, 2, 3, 5, 64, 65])
def test_a_greedy_reply_is_that_of_the_cpu(on_cpu, on_gpu, length):
    prompt = random_prompt(length, seed=length)
    expected = generate(make_engine(on_cpu), prompt, max_new_tokens=20)
    assert generate(make_engine(on_gpu), prompt, max_new_tokens=20) == expected


def test_a_resumed_session_answers_as_if_it_had_started_cold(on_gpu):
    def converse(engine, *, forget):
        history = []
        for turn in range(4):
            if forget:
                engine.snapshots.forget("s")
            history += random_prompt(9, seed=100 + turn)
            history += generate(engine, history, session_id="s")
        return history

    engine = make_engine(on_gpu)
    assert converse(engine, forget=False) == converse(engine, forget=True)


def test_a_state_that_went_to_the_host_and_back_is_the_same_bit_for_bit(on_gpu):
    engine = make_engine(on_gpu)
    generate(engine, random_prompt(30), session_id="s")
    state = engine.snapshots.newest("s").state
    state.wait()
    slot = engine.pool.take()
    engine.pool.restore(slot, state)
    assert torch.equal(engine.pool.conv_states[:, slot].cpu(), state.conv)
    assert torch.equal(engine.pool.ssm_states[:, slot].cpu(), state.ssm)


def test_a_reply_that_ends_by_itself_is_not_moved_by_the_step_launched_ahead(on_cpu, on_gpu):
    prompt = random_prompt(11)
    reply = generate(make_engine(on_cpu), prompt, max_new_tokens=8)
    eos = reply[3]
    engine = make_engine(on_gpu, eos_token_ids=frozenset({eos}))
    seq = make_sequence(prompt, session_id="s", ignore_eos=False, max_new_tokens=20)
    engine.add(seq)
    finish(engine)
    assert seq.output_token_ids == reply[: reply.index(eos) + 1]
    history = prompt + seq.output_token_ids + random_prompt(5, seed=1)
    resumed = make_sequence(history, session_id="s")
    engine.add(resumed)
    assert Admitted(resumed.seq_id, len(prompt) + len(seq.output_token_ids) - 1) in finish(engine)
    assert resumed.output_token_ids == generate(make_engine(on_cpu), history)


def test_a_thousand_random_joins_leaves_cancels_and_retries_change_no_answer(on_cpu, on_gpu):
    rng = random.Random(7)
    engine = make_engine(on_gpu, max_prefill_tokens=5, max_snapshot_bytes=40_000)
    prompts = [random_prompt(rng.randint(1, 30), seed=i) for i in range(12)]
    expected = [generate(make_engine(on_cpu), p, max_new_tokens=6) for p in prompts]
    alive = []
    for _ in range(1_000):
        if rng.random() < 0.3:
            i = rng.randrange(len(prompts))
            session_id = rng.choice([None, "a", "b"])
            seq = make_sequence(prompts[i], session_id=session_id, max_new_tokens=6)
            engine.add(seq)
            alive.append((i, seq))
        elif alive and rng.random() < 0.1:
            engine.abort(alive.pop(rng.randrange(len(alive)))[1].seq_id)
        engine.step()
    finish(engine)
    assert all(seq.output_token_ids == expected[i] for i, seq in alive)
    assert engine.pool.num_free == 4


def test_seeded_sampling_with_penalties_is_that_of_the_cpu(on_cpu, on_gpu):
    options = {
        "temperature": 0.9,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "seed": 5,
        "max_new_tokens": 30,
    }
    prompt = random_prompt(10)
    expected = generate(make_engine(on_cpu), prompt, **options)
    assert generate(make_engine(on_gpu), prompt, **options) == expected
