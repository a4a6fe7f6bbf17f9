"""What is held in 4 bits: as asked, as stored, or as the free memory has it, and the reason."""

from __future__ import annotations

import logging

import pytest
import torch

from benchmarks.lib.models import FALCON_MAMBA_7B
from falcon_mamba_app.checkpoint import placement
from falcon_mamba_app.checkpoint import quantization as decisions
from falcon_mamba_app.checkpoint.placement import Machine, Room, decide
from falcon_mamba_app.checkpoint.quantization import Demand, Quantization, what_fits
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.ops import bitsandbytes
from falcon_mamba_app.service.local.build import build_local
from falcon_mamba_app.settings import EngineSettings, ModelSettings, load_settings
from falcon_mamba_app.settings.flags import spell_flags
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.quantized import make_quantized_checkpoint

STORED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def fp4_folder(tmp_path_factory):
    return make_quantized_checkpoint(tmp_path_factory.mktemp("fp4"), "fp4", is_double=False)


CPU = Machine()


def gpu_with(free_bytes: int | None) -> Machine:
    """A GPU with so many bytes free."""
    return Machine(gpu_capability=(9, 0), free_gpu_bytes=free_bytes)


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """As if bitsandbytes fitted the GPU."""
    monkeypatch.setattr(placement, "why_unusable", lambda device: None)


def placed(model="auto", machine=CPU, **settings):
    """On the reference kernels: this machine has no others for a GPU."""
    limits = EngineSettings().on(has_gpu=machine.has_gpu)
    room = Room(
        max_running=limits.max_running, max_prefill_tokens=limits.max_prefill_tokens, num_copies=8
    )
    asked = ModelSettings(model=str(model), kernels="reference", **settings)
    return decide(asked, room, machine)


def refusal(error, **settings) -> str:
    with pytest.raises(error) as caught:
        placed(**settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_7b_takes_the_bytes_that_the_readme_promises():
    demand = Demand(num_sessions=1, prefill_tokens=2048, dtype_bytes=2, num_copies=1)
    assert FALCON_MAMBA_7B.bytes_in_4bit(2, is_double=False) == pytest.approx(4.87e9, rel=0.01)
    assert FALCON_MAMBA_7B.bytes_in_4bit(2, is_double=True) == pytest.approx(4.56e9, rel=0.01)
    assert demand.total_bytes(FALCON_MAMBA_7B, Quantization("nf4")) < 6.0e9
    assert demand.total_bytes(FALCON_MAMBA_7B, None) > 14.9e9


@pytest.mark.parametrize(
    ("free_gb", "kind"),
    [(80, None), (24, None), (17, None), (16, "int8"), (10, "int8"), (8, "nf4"), (7.4, "nf4")],
)
def test_the_most_exact_form_that_leaves_room_for_32_sessions_is_taken(free_gb, kind):
    demand = Demand(num_sessions=32, prefill_tokens=2048, dtype_bytes=2, num_copies=8)
    quantization, why = what_fits(FALCON_MAMBA_7B, demand, int(free_gb * 1e9))
    assert (quantization.kind if quantization else None) == kind
    assert "with 32 sessions" in why and f"{free_gb:.1f} GB are free" in why


def test_more_sessions_need_more_room():
    free = 8_000_000_000
    assert what_fits(FALCON_MAMBA_7B, Demand(1, 2048, 2), free)[0] == Quantization("nf4")
    with pytest.raises(CheckpointError, match=r"with 128 sessions.*lower `max_running`"):
        what_fits(FALCON_MAMBA_7B, Demand(128, 2048, 2), free)


def test_auto_takes_4_bits_on_a_small_gpu_and_says_why(folder, caplog, monkeypatch):
    monkeypatch.setattr(decisions, "RESERVE_BYTES", 0)
    config = placed(folder).checkpoint.config
    demand = Demand(num_sessions=32, prefill_tokens=2048, dtype_bytes=2, num_copies=8)
    monkeypatch.setattr(ModelConfig, "bytes_in_8bit", lambda self, dtype_bytes: 2**40)
    full, packed = (demand.total_bytes(config, q) for q in (None, Quantization("nf4")))
    if packed > full:  # of a tiny model the one dequantised matrix weighs more than 4 bits save
        monkeypatch.setattr(ModelConfig, "num_parameters", lambda self: 10_000_000)
        full = demand.total_bytes(config, None)
    caplog.set_level(logging.INFO)
    assert placed(folder, gpu_with(full - 1)).quantization == Quantization("nf4")
    assert "nf4: unquantised would take" in caplog.text and "int8 would take" in caplog.text
    assert placed(folder, gpu_with(full)).quantization is None


def test_auto_takes_8_bits_without_the_library_before_4_bits_with_it(folder, monkeypatch, caplog):
    monkeypatch.setattr(placement, "why_unusable", lambda device: "4-bit needs the package")
    monkeypatch.setattr(decisions, "RESERVE_BYTES", 0)
    monkeypatch.setattr(ModelConfig, "num_parameters", lambda self: 2**40)
    monkeypatch.setattr(ModelConfig, "bytes_in_8bit", lambda self, dtype_bytes: 0)
    caplog.set_level(logging.INFO)
    found = placed(folder, gpu_with(500_000_000), double_quantization="on").quantization
    assert found == Quantization("int8") and found.describe() == "int8"
    assert "int8: unquantised would take" in caplog.text


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"quant_method": "torchao", "quant_type": {"default": "int8_weight_only"}}, "torchao, 8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"num_bits": 8}}},
            "compressed-tensors, 8 bits",
        ),
    ],
)
def test_a_checkpoint_of_others_8_bits_is_refused_by_name_and_told_of_ours(value, named):
    with pytest.raises(CheckpointError, match=named) as caught:
        decisions.stored_quantization(value, "a model")
    assert "`quantization` int8" in str(caught.value)


def test_a_named_model_that_fits_in_no_form_is_refused(folder):
    text = refusal(CheckpointError, model=folder, machine=gpu_with(1_000_000))
    assert "even in nf4" in text and "lower `max_running`" in text


def test_auto_falls_back_to_the_bundled_model(folder, monkeypatch, caplog):
    real = placement.locate

    def locate(settings, **more):
        name = str(folder) if settings.model == "auto" else settings.model
        return real(ModelSettings(model=name), **more)

    monkeypatch.setattr(placement, "locate", locate)
    found = placed("auto", gpu_with(1_000_000))
    assert found.checkpoint.is_bundled and found.quantization is None
    assert "running the bundled model instead" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("no NVIDIA driver"), AssertionError("no CUDA")])
def test_a_gpu_that_is_lent_later_runs_the_model_as_it_is(folder, monkeypatch, error):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    # As ZeroGPU's package answers in the process that lends nothing.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 0))
    assert Machine.look().free_gpu_bytes is None

    def fail():
        raise error

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert Machine.look().free_gpu_bytes is None
    assert placed(folder, Machine.look()).quantization is None
    assert not Machine.look("cpu").has_gpu


def test_what_was_asked_for_does_not_depend_on_the_memory(folder):
    small = gpu_with(1_000_000)
    asked = placed(folder, small, quantization="fp4", double_quantization="on")
    assert asked.quantization == Quantization("fp4", is_double=True)
    assert placed(folder, small, quantization="none").quantization is None


def test_the_cpu_quantises_only_when_asked(folder):
    assert placed(folder).quantization is None
    assert placed(folder, quantization="nf4").quantization == Quantization("nf4")


def test_a_quantised_checkpoint_runs_as_its_config_says(fp4_folder):
    expected = Quantization("fp4", compute_dtype="float32", is_stored=True)
    assert placed(fp4_folder).quantization == expected
    assert placed(fp4_folder, gpu_with(1_000_000)).quantization == expected
    assert placed(fp4_folder, quantization="fp4").quantization == expected
    assert expected.describe() == "fp4, products in float32"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"quantization": "nf4"}, "`quantization` nf4: in_4bit is stored in fp4"),
        ({"quantization": "none"}, "`quantization` none: in_4bit is stored in fp4"),
        ({"double_quantization": "on"}, "is stored with it off; leave the setting out"),
    ],
)
def test_settings_that_contradict_what_is_stored_are_refused(fp4_folder, settings, text):
    assert text in refusal(SettingsError, model=fp4_folder, **settings)


def test_settings_that_contradict_each_other_are_refused():
    for kind in ("none", "int8"):
        with pytest.raises(SettingsError, match=f"--quantization is {kind}"):
            load_settings(["--quantization", kind, "--double-quantization", "on"], {})
    with pytest.raises(SettingsError, match="allowed are auto, none, int8, nf4, fp4"):
        load_settings(["--quantization", "int4"], {})


def test_what_a_refusal_names_between_backticks_reaches_people_as_a_flag(fp4_folder):
    with pytest.raises(SettingsError, match="^--quantization nf4: in_4bit is stored in fp4"):
        build_local(ModelSettings(model=str(fp4_folder), quantization="nf4"), EngineSettings())
    assert spell_flags("lower `max_running`; `x` stays") == "lower --max-running; `x` stays"


@pytest.mark.parametrize("value", ["nf4", {"quant_method": "awq"}, {**STORED, "load_in_4bit": 0}])
def test_other_quantisations_are_refused(value):
    with pytest.raises(CheckpointError, match="not to nf4 or fp4"):
        decisions.stored_quantization(value, "a model")


def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(bitsandbytes, "find_spec", lambda name: None)
    why = bitsandbytes.why_unusable(torch.device("cpu"))
    assert why == "4-bit needs the package bitsandbytes: pip install bitsandbytes"


def test_a_library_for_another_cuda_is_one_line_too(monkeypatch):
    """Here it is built for no CUDA at all, which is the same to a GPU."""
    if torch.cuda.is_available():
        pytest.skip("the library fits this machine's GPU")
    why = bitsandbytes.why_unusable(torch.device("cuda"))
    assert why is not None and "has no library for torch's CUDA" in why and "\n" not in why


def test_auto_without_the_library_says_what_it_would_need(folder, monkeypatch):
    monkeypatch.setattr(placement, "what_fits", lambda *args: (Quantization("nf4"), "nf4: small"))
    monkeypatch.setattr(placement, "why_unusable", lambda device: "4-bit needs the package")
    text = refusal(CheckpointError, model=folder, machine=gpu_with(1_000_000))
    assert "would have to run in nf4: small; but 4-bit needs the package" in text
