"""Where a saved state is found again: on the device while it is new, else on the host."""

from __future__ import annotations

from dataclasses import replace

import torch

from falcon_mamba_app.engine.states.pool import NewestCopies, State, StatePool
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import ours


def make_pool():
    config = ours(make_model("falcon_mamba")).config
    return StatePool(config, max_running=2, device=torch.device("cpu"), dtype=torch.float32)


def parts(value):
    return torch.full((2,), value), torch.full((3,), value)


def kept(newest, value):
    newest.make_room()
    return newest.keep(*parts(value))


def test_only_the_newest_copies_are_kept():
    newest = NewestCopies(2)
    first, second, third = (kept(newest, value) for value in (1.0, 2.0, 3.0))
    assert first.parts is None
    assert torch.equal(second.parts[0], parts(2.0)[0]) and torch.equal(
        third.parts[1], parts(3.0)[1]
    )


def test_a_copy_goes_with_its_state_and_leaves_its_place_to_others():
    newest = NewestCopies(1)
    tensors = parts(1.0)
    state = State(*parts(1.0), on_device=newest.keep(*tensors))
    assert state.on_device.parts is not None
    del state
    newest.make_room()
    assert kept(newest, 2.0).parts is not None


def test_a_state_comes_back_the_same_with_and_without_its_copy_on_the_device():
    pool = make_pool()
    source, target = pool.take(), pool.take()
    pool.conv_states[:, source].normal_()
    pool.ssm_states[:, source].normal_()
    on_host = pool.save(source)
    nowhere_else = torch.zeros_like(on_host.conv), torch.zeros_like(on_host.ssm)
    copy = NewestCopies(1).keep(on_host.conv, on_host.ssm)
    on_device = State(*nowhere_else, on_device=copy)  # zeros would show if the host's were taken
    for state in (on_host, on_device):
        pool.clear(target)
        pool.restore(target, state)
        assert torch.equal(pool.conv_states[:, target], on_host.conv)
        assert torch.equal(pool.ssm_states[:, target], on_host.ssm)
    copy.parts = None
    pool.restore(target, replace(on_host, on_device=copy))
    assert torch.equal(pool.ssm_states[:, target], on_host.ssm)
