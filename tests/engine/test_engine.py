"""What users of the engine rely on: batched = alone, resumed = cold, every slot accounted for."""

from __future__ import annotations

import functools
import random

import pytest
import torch

from falcon_mamba_app.engine.events import Admitted, Failed, Prefilled, Queued, Sampled
from falcon_mamba_app.errors import Overloaded, ReplyFailure
from tests.support import engine_fixtures
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import (
    EOS,
    assert_a_thousand_requests_answer_as_if_alone,
    finish,
    generate,
    make_sequence,
    ours,
    random_prompt,
    reasons_of,
    tokens_of,
)


@pytest.fixture(scope="module")
def theirs():
    return make_model("falcon_mamba")


@pytest.fixture(scope="module")
def model(theirs):
    return ours(theirs)


@pytest.fixture(params=[False, True], ids=["in step", "looking ahead"])
def make_engine(request):
    return functools.partial(engine_fixtures.make_engine, look_ahead=request.param)


@pytest.fixture
def engine(model, make_engine):
    return make_engine(model)


@torch.inference_mode()
def their_greedy_reply(theirs, prompt, length):
    """One-shot at every step: the only way in which transformers surely forgets nothing."""
    token_ids = list(prompt)
    for _ in range(length):
        token_ids.append(int(theirs(torch.tensor([token_ids])).logits[0, -1].argmax()))
    return token_ids[len(prompt) :]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 66])
def test_a_greedy_reply_equals_that_of_transformers(theirs, engine, length):
    prompt = random_prompt(length, seed=length)
    assert generate(engine, prompt) == their_greedy_reply(theirs, prompt, 8)


@pytest.mark.parametrize("max_prefill_tokens", [1, 2, 3, 4, 5, 7, 64])
def test_the_chunk_size_changes_nothing(model, max_prefill_tokens, make_engine):
    prompt = random_prompt(65)
    engine = make_engine(model, max_prefill_tokens=max_prefill_tokens)
    assert generate(engine, prompt) == generate(make_engine(model), prompt)


def test_rows_that_join_and_leave_at_every_step_change_nothing_for_the_others(model, make_engine):
    rng = random.Random(0)
    sequences = [
        make_sequence(
            random_prompt(rng.randint(1, 40), seed=i),
            max_new_tokens=rng.randint(1, 12),
            temperature=rng.choice([0.0, 1.0]),
            seed=i,
        )
        for i in range(20)
    ]
    engine = make_engine(model, max_prefill_tokens=7)
    for seq in sequences:
        engine.add(seq)
        engine.step()
    finish(engine)
    for seq in sequences:
        alone = make_sequence(seq.prompt_token_ids)
        alone.sampling, alone.seed = seq.sampling, seq.seed
        fresh = make_engine(model)
        fresh.add(alone)
        finish(fresh)
        assert seq.output_token_ids == alone.output_token_ids


def converse(engine, *, turns=4, forget=False):
    """A conversation in token ids; returns the replies."""
    history, replies = [], []
    for turn in range(turns):
        if forget:
            engine.snapshots.forget("s")
        history += random_prompt(9, seed=100 + turn)
        replies.append(generate(engine, history, session_id="s"))
        history += replies[-1]
    return replies


def test_a_resumed_session_answers_as_if_it_had_started_cold(model, make_engine):
    assert converse(make_engine(model)) == converse(make_engine(model), forget=True)


def test_a_store_too_small_for_any_snapshot_changes_no_answer(model, make_engine):
    tiny = make_engine(model, max_snapshot_bytes=100)
    assert converse(tiny) == converse(make_engine(model))
    assert len(tiny.snapshots) == 0


def test_a_store_that_evicts_all_the_time_changes_no_answer(model, make_engine):
    state_bytes = model.config.state_bytes(4)
    small = make_engine(model, max_snapshot_bytes=state_bytes + 1_000)
    assert converse(small) == converse(make_engine(model))
    assert len(small.snapshots) == 1


def test_the_next_turn_feeds_only_what_is_new(engine):
    first = random_prompt(30)
    reply = generate(engine, first, session_id="s")
    question = random_prompt(7, seed=1)
    seq = make_sequence(first + reply + question, session_id="s")
    engine.add(seq)
    events = finish(engine)
    # The reply's last token was sampled but never fed.
    assert Admitted(seq.seq_id, len(first) + len(reply) - 1) in events


def test_a_retry_reads_nothing_again(engine):
    prompt = random_prompt(30)
    first = generate(engine, prompt, session_id="s")
    seq = make_sequence(prompt, session_id="s")
    engine.add(seq)
    events = finish(engine)
    assert Admitted(seq.seq_id, len(prompt) - 1) in events
    assert not any(isinstance(event, Prefilled) for event in events)
    assert seq.output_token_ids == first


def test_an_edited_turn_resumes_where_the_edit_begins(engine):
    first = random_prompt(20)
    reply = generate(engine, first, session_id="s")
    generate(engine, first + reply + random_prompt(5, seed=1), session_id="s")
    seq = make_sequence(first + reply + random_prompt(6, seed=2), session_id="s")
    engine.add(seq)
    events = finish(engine)
    assert Admitted(seq.seq_id, len(first) + len(reply) - 1) in events


def test_a_reply_that_was_stopped_is_resumed_from_its_snapshot(model, make_engine):
    """Cancelled in mid-reply: what was shown stays, and the next turn continues from it."""
    engine, prompt = make_engine(model), random_prompt(12)
    seq = make_sequence(prompt, session_id="s", max_new_tokens=100)
    engine.add(seq)
    while len(seq.output_token_ids) < 5:
        engine.step()
    engine.abort(seq.seq_id)
    history = prompt + seq.output_token_ids + random_prompt(4, seed=3)
    resumed = make_sequence(history, session_id="s")
    engine.add(resumed)
    events = finish(engine)
    assert Admitted(resumed.seq_id, len(prompt) + len(seq.output_token_ids) - 1) in events
    assert resumed.output_token_ids == generate(make_engine(model), history)


def test_a_prompt_cancelled_in_mid_chunk_goes_on_where_it_was(model, make_engine):
    engine, prompt = make_engine(model, max_prefill_tokens=8), random_prompt(50)
    seq = make_sequence(prompt, session_id="s")
    engine.add(seq)
    engine.step()
    engine.step()
    engine.abort(seq.seq_id)
    again = make_sequence(prompt, session_id="s")
    engine.add(again)
    events = finish(engine)
    assert Admitted(again.seq_id, 16) in events
    assert again.output_token_ids == generate(make_engine(model), prompt)


def test_another_session_never_gets_the_state(engine):
    prompt = random_prompt(30)
    generate(engine, prompt, session_id="mine")
    for session_id in ("yours", None):
        seq = make_sequence(prompt, session_id=session_id)
        engine.add(seq)
        assert Admitted(seq.seq_id, 0) in finish(engine)


def test_a_request_without_a_session_leaves_no_snapshot(engine):
    generate(engine, random_prompt(30))
    assert len(engine.snapshots) == 0


def test_aborting_frees_the_slot_at_once(engine):
    seq = make_sequence(random_prompt(5), max_new_tokens=1_000)
    engine.add(seq)
    engine.step()
    assert engine.pool.num_free == 3
    engine.abort(seq.seq_id)
    assert engine.pool.num_free == 4
    assert engine.num_running == 0
    assert engine.step() == []


def test_aborting_someone_in_line_lets_the_next_one_up(model, make_engine):
    engine = make_engine(model, max_running=1)
    first, second, third = (make_sequence(random_prompt(5), max_new_tokens=3) for _ in range(3))
    for seq in (first, second, third):
        engine.add(seq)
    assert [e for e in engine.step() if isinstance(e, Queued)] == [
        Queued(second.seq_id, 1),
        Queued(third.seq_id, 2),
    ]
    engine.abort(second.seq_id)
    assert Queued(third.seq_id, 1) in engine.step()
    finish(engine)
    assert len(third.output_token_ids) == 3


def test_a_recycled_slot_starts_empty(model, make_engine):
    engine = make_engine(model, max_running=1)
    prompt = random_prompt(20)
    first = generate(engine, prompt)
    generate(engine, random_prompt(20, seed=9))
    assert generate(engine, prompt) == first


def test_a_one_token_prompt_does_not_see_who_had_the_slot_before(model, make_engine):
    engine = make_engine(model, max_running=1)
    expected = generate(make_engine(model), [42])
    generate(engine, random_prompt(20))
    assert generate(engine, [42]) == expected


def test_a_saved_state_does_not_alias_the_live_one(engine):
    prompt = random_prompt(10)
    reply = generate(engine, prompt, session_id="s")
    snapshot = engine.snapshots.newest("s")
    before = snapshot.state.ssm.clone()
    generate(engine, prompt + reply + random_prompt(5, seed=1), session_id="s")
    assert torch.equal(snapshot.state.ssm, before)


def test_end_of_sequence_ends_the_reply_unless_ignored(theirs, model, make_engine):
    prompt = random_prompt(11)
    reply = their_greedy_reply(theirs, prompt, 8)
    engine = make_engine(model, eos_token_ids=frozenset({reply[3]}))
    seq = make_sequence(prompt, ignore_eos=False)
    engine.add(seq)
    events = finish(engine)
    assert tokens_of(events, seq) == reply[: reply.index(reply[3]) + 1]
    assert reasons_of(events, seq) == ["stop"]
    assert generate(engine, prompt, ignore_eos=True) == reply


def test_max_new_tokens_ends_the_reply(engine):
    seq = make_sequence(random_prompt(5), max_new_tokens=3)
    engine.add(seq)
    events = finish(engine)
    assert len(tokens_of(events, seq)) == 3
    assert reasons_of(events, seq) == ["length"]


def test_decoding_rows_do_not_wait_for_a_long_prompt(model, make_engine):
    engine = make_engine(model, max_prefill_tokens=4)
    reader = make_sequence(random_prompt(3), max_new_tokens=50)
    engine.add(reader)
    for _ in range(3):
        engine.step()
    engine.add(make_sequence(random_prompt(100)))
    for _ in range(20):
        assert tokens_of(engine.step(), reader)


@pytest.mark.parametrize("max_prefill_tokens", [3, 64])
def test_prompt_scores_equal_those_of_transformers(theirs, model, max_prefill_tokens, make_engine):
    prompt = random_prompt(40)
    engine = make_engine(model, max_prefill_tokens=max_prefill_tokens)
    generate(engine, prompt, session_id="s")  # its snapshot must not be used
    seq = make_sequence(prompt, session_id="s", score_prompt=2, max_new_tokens=0)
    engine.add(seq)
    events = finish(engine)
    scores = [score for e in events if isinstance(e, Prefilled) for score in e.scores]
    with torch.inference_mode():
        logprobs = theirs(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
    assert [score.token_id for score in scores] == prompt[1:]
    for i, score in enumerate(scores):
        assert score.logprob == pytest.approx(float(logprobs[i, prompt[i + 1]]), abs=1e-4)
        assert [top[0] for top in score.top] == logprobs[i].topk(2).indices.tolist()
    assert reasons_of(events, seq) == ["length"]


def test_a_one_token_prompt_that_is_only_scored_ends_without_a_token(engine):
    seq = make_sequence([42], score_prompt=0, max_new_tokens=0)
    engine.add(seq)
    events = finish(engine)
    assert tokens_of(events, seq) == []
    assert reasons_of(events, seq) == ["length"]


def test_sampled_tokens_carry_their_logprob_before_any_parameter(theirs, engine):
    prompt = random_prompt(10)
    seq = make_sequence(prompt, logprobs=3, temperature=0.5, frequency_penalty=1.0, seed=1)
    engine.add(seq)
    events = finish(engine)
    with torch.inference_mode():
        logits = theirs(torch.tensor([prompt + seq.output_token_ids])).logits[0].float()
    logprobs = logits.log_softmax(-1)
    sampled = [event.token for event in events if isinstance(event, Sampled)]
    for i, token in enumerate(sampled):
        expected = float(logprobs[len(prompt) - 1 + i, token.token_id])
        assert token.score.logprob == pytest.approx(expected, abs=1e-4)
        assert len(token.score.top) == 3


def test_penalties_of_a_resumed_session_count_the_same_tokens(model, make_engine):
    def reply(engine):
        prompt = random_prompt(15)
        first = generate(engine, prompt, session_id="s", repetition_penalty=1.5)
        return generate(engine, prompt + first, session_id="s", repetition_penalty=1.5)

    cold = make_engine(model, max_snapshot_bytes=0)
    assert reply(make_engine(model)) == reply(cold)


@pytest.fixture(
    params=[
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
        MemoryError(),
    ],
    ids=["card", "torch on a CPU", "Python"],
)
def lack(request) -> Exception:
    """A lack of memory, as whoever lacks it says so."""
    return request.param


def test_running_out_of_memory_fails_those_rows_and_nobody_else(
    model, monkeypatch, make_engine, lack
):
    engine = make_engine(model, max_prefill_tokens=4)
    reader = make_sequence(random_prompt(3), max_new_tokens=6)
    engine.add(reader)
    engine.step()
    engine.step()
    unlucky = make_sequence(random_prompt(30), session_id="s")
    engine.add(unlucky)

    def no_memory(chunks):
        raise lack

    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "prefill", no_memory)
        events = engine.step()
    assert "memory" in next(
        str(e.error) for e in events if e.seq_id == unlucky.seq_id and isinstance(e, Failed)
    )
    assert len(engine.snapshots) == 0, "a state that may be half advanced was kept"
    finish(engine)
    assert reader.output_token_ids == generate(
        make_engine(model), random_prompt(3), max_new_tokens=6
    )
    assert engine.pool.num_free == 4


def test_without_memory_for_a_snapshot_the_reply_goes_on_and_nothing_is_kept(
    model, make_engine, monkeypatch, lack
):
    engine, prompt = make_engine(model), random_prompt(20)

    def no_memory(*args):
        raise lack

    monkeypatch.setattr(engine.pool, "save", no_memory)
    reply = generate(engine, prompt, session_id="s")
    assert reply == generate(make_engine(model), prompt)
    assert len(engine.snapshots) == 0


def test_without_memory_to_restore_a_snapshot_the_prompt_is_read_again(
    model, make_engine, monkeypatch, lack
):
    engine, prompt = make_engine(model), random_prompt(20)
    expected = generate(engine, prompt, session_id="s")

    def no_memory(slot, state):
        engine.pool.ssm_states[:, slot] = 7.0  # half done
        raise lack

    monkeypatch.setattr(engine.pool, "restore", no_memory)
    seq = make_sequence(prompt, session_id="s")
    engine.add(seq)
    assert Admitted(seq.seq_id, 0) in finish(engine)
    assert seq.output_token_ids == expected


def test_several_rows_without_memory_all_fail_and_are_not_read_again(
    model, monkeypatch, make_engine, lack
):
    engine = make_engine(model)
    crowd = [make_sequence(random_prompt(9, seed), max_new_tokens=6) for seed in range(3)]
    for seq in crowd:
        engine.add(seq)

    def no_memory(*args):
        raise lack

    with monkeypatch.context() as patch:
        for name in ("decode", "prefill", "decode_and_prefill"):
            patch.setattr(engine._runner, name, no_memory)
        failed = [event for event in finish(engine) if isinstance(event, Failed)]
    assert len(failed) == 3 and all(isinstance(event.error, Overloaded) for event in failed)
    assert engine.pool.num_free == 4


def test_another_error_while_a_state_is_saved_is_no_lack_of_memory(model, make_engine, monkeypatch):
    engine, prompt = make_engine(model), random_prompt(20)

    def broken(*args):
        raise RuntimeError("shapes")

    monkeypatch.setattr(engine.pool, "save", broken)
    engine.add(make_sequence(prompt, session_id="s"))
    (failed,) = [event for event in finish(engine) if isinstance(event, Failed)]
    assert isinstance(failed.error, ReplyFailure)


def test_a_session_forgotten_in_mid_reply_leaves_nothing(model, make_engine):
    engine = make_engine(model)
    seq = make_sequence(random_prompt(12), session_id="s", max_new_tokens=30)
    engine.add(seq)
    for _ in range(5):
        engine.step()
    engine.forget("s")
    finish(engine)
    assert len(seq.output_token_ids) == 30
    assert len(engine.snapshots) == 0


def test_the_same_retry_leaves_the_newest_state_where_it_was(model, make_engine):
    engine, prompt = make_engine(model), random_prompt(12)
    generate(engine, prompt, session_id="s")
    newest = engine.snapshots.newest("s").token_ids
    generate(engine, prompt, session_id="s")
    assert engine.snapshots.newest("s").token_ids == newest


def test_logits_that_are_no_numbers_stay_within_the_vocabulary(make_engine):
    broken = ours(make_model("falcon_mamba"))
    broken.backbone.norm_f.weight.fill_(float("nan"))
    engine = make_engine(broken)
    for temperature in (0.0, 1.0):
        reply = generate(engine, random_prompt(5), temperature=temperature)
        assert all(0 <= token_id < broken.config.vocab_size for token_id in reply)


def test_a_thousand_random_joins_leaves_cancels_and_retries_change_no_answer(model, make_engine):
    engine = make_engine(model, max_prefill_tokens=5, max_snapshot_bytes=40_000)
    assert_a_thousand_requests_answer_as_if_alone(engine, model)


def test_eos_is_not_in_the_state_but_is_fed_by_the_next_turn(model, make_engine):
    """The template repeats the end-of-turn token, so the next prompt contains it."""
    prompt = random_prompt(10)
    eos = generate(make_engine(model), prompt, max_new_tokens=3)[2]
    engine = make_engine(model, eos_token_ids=frozenset({eos}))
    seq = make_sequence(prompt, session_id="s", ignore_eos=False, max_new_tokens=20)
    engine.add(seq)
    finish(engine)
    assert seq.output_token_ids[-1] == eos != EOS
    snapshot = engine.snapshots.newest("s")
    assert snapshot.token_ids == prompt + seq.output_token_ids[:-1]
