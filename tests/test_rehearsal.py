"""The rehearsal of a start; that it spares the engine its compiling is a GPU test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from falcon_mamba_app.engine.rehearsal import Rehearsal, empty_model
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.ops.reference import REFERENCE
from falcon_mamba_app.ops.triton_kernels import TRITON
from falcon_mamba_app.service.local import LocalService
from falcon_mamba_app.settings import EngineSettings, ModelSettings
from tests.checkpoints import make_model, make_tokenizer
from tests.engine_fixtures import ours

CPU = torch.device("cpu")


@pytest.fixture
def config():
    return ours(make_model("falcon_mamba")).config


def rehearse(config, ops):
    return Rehearsal(config, ops, max_running=2, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("ops", [REFERENCE, TRITON], ids=lambda ops: ops.name)
def test_it_runs_every_operation_once_and_ends(config, ops):
    ran = []

    def noted(*args):
        ran.append(args[0].shape)
        return ops.sample(*args)

    rehearse(config, replace(ops, sample=noted)).wait()
    assert ran and {shape[1] for shape in ran} == {config.vocab_size}


def test_where_its_model_has_no_room_the_start_goes_on_without_it(config, caplog):
    def no_room(*_):
        raise torch.OutOfMemoryError("no room")

    rehearse(config, replace(REFERENCE, rms_norm=no_room)).wait()
    assert "no memory for the rehearsal" in caplog.text


def test_its_model_is_one_layer_of_the_shapes_of_the_real_one(config):
    model = empty_model(replace(config, num_layers=1), REFERENCE, CPU, torch.float32)
    real = ours(make_model("falcon_mamba")).backbone.layers[0].state_dict()
    assert {k: v.shape for k, v in model.backbone.layers[0].state_dict().items()} == {
        k: v.shape for k, v in real.items()
    }
    assert model.lm_head.weight.shape == (config.vocab_size, config.hidden_size)


def test_a_start_that_fails_at_the_tokenizer_waits_for_it_to_end(config, tmp_path):
    """A process that ends while threads compile may end with a crash."""
    make_model("falcon_mamba").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    begun = []

    class RehearsingService(LocalService):
        def _rehearse(self, hardware, placement):
            begun.append(rehearse(placement.checkpoint.config, hardware.ops))
            return begun[0]

    with pytest.raises(CheckpointError, match="tokenizer"):
        RehearsingService(ModelSettings(model=str(tmp_path), device="cpu"), EngineSettings())
    assert len(begun) == 1 and not begun[0].is_running
