"""Snapshots on a GPU: what is reserved at start is what they use."""

from __future__ import annotations

import pytest
import torch

from falcon_mamba_app.engine.states.pool import MAX_RESERVED_STATES, StatePool
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import generate, make_engine, ours, random_prompt

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def num_pinnings() -> int:
    """How often torch has asked the driver for pinned host memory."""
    return torch.cuda.host_memory_stats()["num_host_alloc"]


def test_snapshots_pin_no_memory_that_was_not_reserved_at_start():
    engine = make_engine(ours(make_model("falcon_mamba").to("cuda"), TRITON))
    sessions = [str(number) for number in range(MAX_RESERVED_STATES // 2)]  # two snapshots each
    for session in sessions[:4]:
        generate(engine, random_prompt(9), session_id=session, max_new_tokens=2)
    before = num_pinnings()
    for session in sessions[4:]:
        generate(engine, random_prompt(9), session_id=session, max_new_tokens=2)
    assert len(engine.snapshots) == MAX_RESERVED_STATES
    assert num_pinnings() == before


def test_a_state_comes_back_the_same_from_the_device_and_from_the_host():
    config = ours(make_model("falcon_mamba")).config
    pool = StatePool(config, max_running=2, device=torch.device("cuda"), dtype=torch.float32)
    source, target = pool.take(), pool.take()
    pool.conv_states[:, source].normal_()
    pool.ssm_states[:, source].normal_()
    state = pool.save(source)
    for is_kept in (True, False):
        assert (state.on_device.parts is not None) == is_kept
        pool.clear(target)
        pool.restore(target, state)
        assert torch.equal(pool.conv_states[:, target], pool.conv_states[:, source])
        assert torch.equal(pool.ssm_states[:, target], pool.ssm_states[:, source])
        others = [pool.save(source) for _ in range(2)]  # as many as are kept
    assert all(other.on_device.parts is not None for other in others)


def test_a_state_that_is_dropped_leaves_nothing_on_the_device():
    config = ours(make_model("falcon_mamba")).config
    pool = StatePool(config, max_running=2, device=torch.device("cuda"), dtype=torch.float32)
    before = torch.cuda.memory_allocated()
    state = pool.save(pool.take())
    state.wait()
    assert torch.cuda.memory_allocated() > before
    del state
    assert torch.cuda.memory_allocated() == before
