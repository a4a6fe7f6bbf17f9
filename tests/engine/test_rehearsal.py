"""The rehearsal of a start; that it spares the engine its compiling is a GPU test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import partial

import pytest
import torch

from falcon_mamba_app.engine.runner.warm_up import empty_model, rehearse_meanwhile
from falcon_mamba_app.model.in_8bit import put_in_8bit
from falcon_mamba_app.ops import REFERENCE, Ops
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import ours

CPU = torch.device("cpu")


@pytest.fixture
def config():
    return ours(make_model("falcon_mamba")).config


def rehearse(config, ops, **options):
    options = {"max_running": 2, "device": CPU, "dtype": torch.float32, **options}
    return rehearse_meanwhile(config, ops, **options)


FORMS = {"none": lambda model: None, "int8": partial(put_in_8bit, dtype=torch.float32)}


def form_of(value):
    """A test's name that every process gives it."""
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(
    ("ops", "form"), [(REFERENCE, "none"), (REFERENCE, "int8"), (TRITON, "none")], ids=form_of
)
def test_it_runs_every_operation_once_and_ends(config, ops, form):
    ran = []

    class Noted(type(ops)):
        def sample(self, logits, params):
            ran.append(logits.shape)
            return ops.sample(logits, params)

    rehearse(config, Noted(), form=FORMS[form]).join()
    assert ran and {shape[1] for shape in ran} == {config.vocab_size}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("no room"), "OutOfMemoryError: no room"),
        (RuntimeError("the kernel image is invalid\nat line 3"), "RuntimeError: the kernel image"),
    ],
)
def test_where_it_fails_the_start_goes_on_without_it(config, caplog, error, said):
    class Fails(Ops):
        def rms_norm(self, *_):
            raise error

    rehearse(config, Fails()).join()
    assert f"the rehearsal failed, so the start takes longer: {said}" in caplog.text
    assert "at line 3" not in caplog.text


def test_its_model_is_one_layer_of_the_shapes_of_the_real_one(config):
    model = empty_model(replace(config, num_layers=1), REFERENCE, CPU, torch.float32)
    real = ours(make_model("falcon_mamba")).backbone.layers[0].state_dict()
    assert {k: v.shape for k, v in model.backbone.layers[0].state_dict().items()} == {
        k: v.shape for k, v in real.items()
    }
    assert model.lm_head.weight.shape == (config.vocab_size, config.hidden_size)


def test_a_process_that_ends_meanwhile_waits_for_what_compiles():
    """Or it would end with a crash."""
    code = """
        import sys, time
        from tests.engine.test_rehearsal import Ops, make_model, ours, rehearse

        class CompilesSlowly(Ops):
            def rms_norm(self, *args):
                time.sleep(0.5)
                print("compiled", flush=True)
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")

        config = ours(make_model("falcon_mamba")).config
        rehearse(config, CompilesSlowly())
        sys.exit(130)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "compiled\n", "")
