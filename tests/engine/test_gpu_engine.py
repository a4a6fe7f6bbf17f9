"""The engine on a GPU (graphs, looking ahead, copies beside it) against the engine on the CPU."""

from __future__ import annotations

import gc

import pytest
import torch

from benchmarks.lib.models import random_7b
from falcon_mamba_app.engine.events import Admitted, Failed
from falcon_mamba_app.engine.runner.model_runner import make_runner
from falcon_mamba_app.engine.runner.warm_up import rehearse
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    assert_a_thousand_requests_answer_as_if_alone,
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
    engine = make_engine(on_gpu, max_prefill_tokens=5, max_snapshot_bytes=40_000)
    assert_a_thousand_requests_answer_as_if_alone(engine, on_cpu)


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


@pytest.mark.parametrize("length", [2, 63, 64, 65, 130, 200])
def test_a_prompt_read_beside_running_rows_changes_nobody_s_answer(on_cpu, on_gpu, length):
    """One pass holds the rows and a piece of the prompt, padded to the shape that was captured."""
    first, second = random_prompt(9, seed=1), random_prompt(length, seed=length)
    engine = make_engine(on_gpu, max_prefill_tokens=100, max_mixed_prefill_tokens=70)
    running = make_sequence(first, max_new_tokens=40)
    engine.add(running)
    for _ in range(5):
        engine.step()
    read = make_sequence(second, max_new_tokens=10)
    engine.add(read)
    finish(engine)
    expected = generate(make_engine(on_cpu), first, max_new_tokens=40)
    assert running.output_token_ids == expected
    assert read.output_token_ids == generate(make_engine(on_cpu), second, max_new_tokens=10)


def test_penalties_and_scores_of_one_row_change_no_other_row(on_cpu, on_gpu):
    """A graph has chosen all tokens when somebody looks at penalties; they are chosen anew then."""
    prompts = [random_prompt(7, seed=i) for i in range(3)]
    wishes = [
        {"temperature": 0.8, "seed": 3},
        {"repetition_penalty": 1.5, "logprobs": 2},
        {"presence_penalty": 0.9, "temperature": 0.7, "top_p": 0.8, "seed": 9},
    ]
    engine = make_engine(on_gpu)
    seqs = [
        make_sequence(p, max_new_tokens=15, **wish) for p, wish in zip(prompts, wishes, strict=True)
    ]
    for seq in seqs:
        engine.add(seq)
    finish(engine)
    for seq, prompt, wish in zip(seqs, prompts, wishes, strict=True):
        alone = generate(make_engine(on_cpu), prompt, max_new_tokens=15, **wish)
        assert seq.output_token_ids == alone


def test_starting_an_engine_touches_the_scratch_slot_alone(on_gpu):
    pool = StatePool(on_gpu.config, max_running=3, device=on_gpu.device, dtype=on_gpu.dtype)
    for states in (pool.conv_states, pool.ssm_states):
        states.normal_()
    before = pool.conv_states.clone(), pool.ssm_states.clone()
    runner = make_runner(on_gpu, pool, eos_token_ids=frozenset(range(on_gpu.config.vocab_size)))
    torch.cuda.synchronize()
    assert torch.equal(pool.conv_states[:, 1:], before[0][:, 1:])
    assert torch.equal(pool.ssm_states[:, 1:], before[1][:, 1:])
    assert runner._passes._last_tokens[1].tolist() == [0, 1, 2, 3]


def test_after_the_start_nothing_is_compiled_any_more(on_gpu, monkeypatch):
    """Whatever the number of rows, the length of a prompt, and the mix of both."""
    import triton

    engine = make_engine(on_gpu, max_prefill_tokens=700)
    compiled = []

    def note(*args, **kwargs):
        compiled.append(kwargs.get("repr", args))

    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", note)
    lengths = [1, 2, 3, 4, 6, 10, 18, 34, 50, 66, 100, 130, 258, 300, 514, 650, 900]
    for length in lengths:
        generate(engine, random_prompt(length), max_new_tokens=3, temperature=0.9, top_p=0.9)
    seqs = [make_sequence(random_prompt(n), max_new_tokens=9) for n in lengths]
    for seq in seqs:
        engine.add(seq)
        engine.step()
    finish(engine)
    assert compiled == []


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory < 23e9,
    reason="needs a GPU of 24 GB or more",
)
def test_a_card_of_24_gb_holds_7b_in_bf16_with_eight_sessions():
    """A long prompt is read while seven rows decode, in what such a card leaves beside its own."""
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(23e9 / total_bytes)
    try:
        model = random_7b(TRITON, torch.device("cuda"), torch.bfloat16)
        engine = make_engine(
            model, max_running=8, max_prefill_tokens=2_048, max_mixed_prefill_tokens=256
        )
        short = [make_sequence(random_prompt(40, seed=i), max_new_tokens=60) for i in range(7)]
        long = make_sequence(random_prompt(12_000), max_new_tokens=5, session_id="long")
        for seq in (*short, long):
            engine.add(seq)
        events = finish(engine)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not [event for event in events if isinstance(event, Failed)]
    assert [len(seq.output_token_ids) for seq in (*short, long)] == [60] * 7 + [5]
    print(f"peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


def test_after_a_rehearsal_the_engine_compiles_nothing(monkeypatch):
    """Of shapes that no other test has compiled."""
    import triton

    model = ours(make_model("falcon_mamba", hidden_size=48, vocab_size=500).to("cuda"), TRITON)
    rehearse(model.config, TRITON, max_running=4, device=model.device, dtype=model.dtype)
    compiled = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_cache_hook", lambda *args, **kwargs: compiled.append(kwargs)
    )
    reply = generate(make_engine(model), random_prompt(70), max_new_tokens=5)
    assert len(reply) == 5 and compiled == []
