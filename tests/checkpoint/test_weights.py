"""Weights from files into our modules: equal logits, one copy, and no silent repair."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from falcon_mamba_app.checkpoint import weights
from falcon_mamba_app.checkpoint.generation import load_generation_defaults
from falcon_mamba_app.checkpoint.locate import Checkpoint, locate
from falcon_mamba_app.checkpoint.placement import Machine, choose_dtype
from falcon_mamba_app.checkpoint.weights import (
    load_model,
    load_tokenizer,
    weights_bytes,
)
from falcon_mamba_app.errors import CheckpointError, SettingsError
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.engine_fixtures import logits_from_nothing
from tests.support.fake_hub import HUB_ID, FakeHub

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
VARIANTS = {
    "falcon_mamba": {},
    "falcon_mamba untied": {"tie_word_embeddings": False},
    "falcon_mamba with biases": {"use_bias": True},
    "falcon_mamba without conv bias": {"use_conv_bias": False},
    "falcon_mamba with bf16 residual": {"residual_in_fp32": False},
    "falcon_mamba with another mixer eps": {"mixer_rms_eps": 1e-2},
    "mamba": {},
    "mamba untied": {"tie_word_embeddings": False},
    "mamba with biases": {"use_bias": True},
    "mamba without conv bias": {"use_conv_bias": False},
}


def located(folder: Path | str) -> Checkpoint:
    return locate(ModelSettings(model=str(folder)), has_cuda=False)


def load(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, **options) -> FalconMamba:
    make_model = partial(FalconMamba, ops=select_ops(CPU, "reference"))
    return load_model(checkpoint, device=CPU, dtype=dtype, make_model=make_model, **options)


def logits_of_transformers(folder: Path, token_ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([token_ids]), use_cache=False).logits[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("source"), max_shard_size="40KB")


@pytest.fixture
def folder(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "tiny"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(located(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_shard_of(folder: Path, key: str, change) -> None:
    """Apply `change` to the tensors of the file that holds `key`."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path = folder / index["weight_map"][key]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_loaded_logits_are_those_of_transformers(tmp_path, variant):
    make_tiny_checkpoint(tmp_path, variant.split()[0], **VARIANTS[variant])
    token_ids = [(7 * i) % 440 for i in range(40)]
    theirs = logits_of_transformers(tmp_path, token_ids)
    ours = logits_from_nothing(load(located(tmp_path)), token_ids)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_weights_remember_what_was_read(source):
    """Or a carried state that is wrong would pass for right."""
    model, token_ids = load(located(source)), [(7 * i) % 440 for i in range(60)]
    with_history = logits_from_nothing(model, token_ids)[-1]
    without = logits_from_nothing(model, token_ids[-30:])[-1]
    assert (with_history - without).abs().max() > 0.1


def test_intermediate_size_rules_where_expand_contradicts_it(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["intermediate_size"] == 64
    (folder / "config.json").write_text(json.dumps(config | {"expand": 16}))
    assert located(folder).config.d_inner == 64
    assert load(located(folder)).backbone.layers[0].mixer.D.shape == (64,)


def test_keys_that_older_configs_lack_take_the_published_values(folder):
    config = json.loads((folder / "config.json").read_text())
    for key in ("mixer_rms_eps", "time_step_rank", "intermediate_size"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert located(folder).config.mixer_norm_eps == 1e-6
    assert located(folder).config.d_inner == 64
    assert located(folder).config.dt_rank == 2  # "auto": no longer what the weights have
    assert "the files do not belong together" in refusal(folder)


@pytest.mark.parametrize("is_tied", [True, False])
def test_our_modules_hold_the_very_tensors_that_were_read(tmp_path, monkeypatch, is_tied):
    make_tiny_checkpoint(tmp_path, tie_word_embeddings=is_tied)
    read: list[dict[str, torch.Tensor]] = []
    original = weights.read_plain

    def remember(*args, **kwargs):
        read.append(original(*args, **kwargs))
        return read[-1]

    monkeypatch.setattr(weights, "read_plain", remember)
    ours = load(located(tmp_path)).state_dict()
    assert read[0].keys() | {"lm_head.weight"} == ours.keys()
    for key, tensor in read[0].items():
        assert ours[key].data_ptr() == tensor.data_ptr(), key


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_files_are_read_as_transformers_reads_them(tmp_path, monkeypatch, is_tied, dtype):
    make_tiny_checkpoint(
        tmp_path, tie_word_embeddings=is_tied, dtype=torch.bfloat16, max_shard_size="40KB"
    )
    ours = load(located(tmp_path), dtype).state_dict()
    monkeypatch.setattr(weights, "read_plain", lambda *args, **kwargs: None)
    theirs = load(located(tmp_path), dtype).state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype and torch.equal(ours[key], tensor), key


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_tied_head_stays_tied(tmp_path, is_tied):
    make_tiny_checkpoint(tmp_path, tie_word_embeddings=is_tied)
    checkpoint = located(tmp_path)
    model = load(checkpoint)
    assert (model.lm_head.weight is model.backbone.embeddings.weight) == is_tied
    assert weights_bytes(model) == 4 * checkpoint.config.num_parameters()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decays_stay_in_fp32_when_the_matrices_do_not(source, dtype):
    exact, model = load(located(source)), load(located(source), dtype)
    for full, half in zip(exact.backbone.layers, model.backbone.layers, strict=True):
        assert half.mixer.A_log.dtype == half.mixer.D.dtype == torch.float32
        assert torch.equal(half.mixer.A_log, full.mixer.A_log)
        assert half.mixer.in_proj.weight.dtype == dtype


def test_a_truncated_file_is_refused(folder):
    path = folder / "model-00002-of-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read" in refusal(folder)


def test_a_file_of_nonsense_is_refused(folder):
    (folder / "model-00001-of-00004.safetensors").write_bytes(b"no weights at all")
    assert "cannot be read" in refusal(folder)


def test_a_missing_tensor_is_refused_and_not_made_up(folder):
    key = "backbone.layers.1.mixer.A_log"
    rewrite_shard_of(folder, key, lambda tensors: tensors.pop(key))
    assert f"lacks 1 of the model's weights, {key} first" in refusal(folder)


def test_a_tensor_of_another_shape_is_refused(folder):
    key = "backbone.layers.1.mixer.D"
    rewrite_shard_of(folder, key, lambda tensors: tensors.update({key: torch.ones(65)}))
    assert f"{key} has the shape (65,) where config.json implies (64,)" in refusal(folder)


def test_a_tensor_that_the_config_does_not_imply_is_refused(folder):
    key = "backbone.layers.1.mixer.D"
    extra = {"backbone.layers.9.mixer.D": torch.ones(64)}
    rewrite_shard_of(folder, key, lambda tensors: tensors.update(extra))
    assert "holds 1 weights that its config.json does not imply" in refusal(folder)


def test_plain_files_come_into_a_cpu_without_transformers_and_without_torchs_compiler():
    """Whose imports take 5 s of a start. In a fresh interpreter: this one has both."""
    code = """
        import sys, torch
        from functools import partial
        from falcon_mamba_app.checkpoint.locate import locate
        from falcon_mamba_app.checkpoint.weights import load_model
        from falcon_mamba_app.model.falcon_mamba import FalconMamba
        from falcon_mamba_app.ops import REFERENCE
        from falcon_mamba_app.settings import ModelSettings

        nano = locate(ModelSettings(model="nano"), has_cuda=False)
        model = partial(FalconMamba, ops=REFERENCE)
        load_model(nano, device=torch.device("cpu"), dtype=torch.float32, make_model=model)
        print({"transformers", "torch._dynamo"} & sys.modules.keys() or "neither")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    assert result.stdout == "neither\n"


def test_progress_is_told_up_to_the_end_and_nothing_is_printed(source, capfd):
    told: list[tuple[float, str]] = []
    load(located(source), on_progress=lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 10
    assert {what for _, what in told} == {"reading weights", "weights loaded"}
    assert "".join(capfd.readouterr()) == ""


def test_a_hub_model_is_downloaded_with_progress_and_then_needs_no_hub(
    source, tmp_path, monkeypatch
):
    told: list[tuple[float, str]] = []
    with FakeHub(source, tmp_path / "cache", monkeypatch) as hub:
        model = load(located(HUB_ID), on_progress=lambda share, what: told.append((share, what)))
        downloads = [share for share, what in told if what.startswith("downloading weights")]
        assert downloads == sorted(downloads) and downloads[-1] == pytest.approx(1.0)
        assert set(hub.downloaded) >= set(located(HUB_ID).weight_files)
    again = load(located(HUB_ID))
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_auto_precision_is_bf16_only_where_the_cpu_multiplies_it(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    assert choose_dtype("auto", Machine.look("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_dtype("auto", Machine.look("cpu")) == torch.bfloat16
    assert choose_dtype("float32", Machine.look("cpu")) == torch.float32
    with pytest.raises(SettingsError, match="float16 needs a GPU"):
        choose_dtype("float16", Machine.look("cpu"))


@pytest.mark.parametrize("capability,expected", [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_gpu_gets_bf16_from_ampere_on_and_fp16_before(capability, expected):
    gpu = Machine(gpu_capability=capability)
    assert choose_dtype("auto", gpu) == expected
    assert choose_dtype("float32", gpu) == torch.float32
    if expected == torch.bfloat16:
        assert choose_dtype("bfloat16", gpu) == torch.bfloat16
    else:
        with pytest.raises(SettingsError, match="has 7.5: use float16"):
            choose_dtype("bfloat16", gpu)


def defaults_of(folder: Path):
    checkpoint = located(folder)
    return load_generation_defaults(checkpoint, load_tokenizer(checkpoint))


def write_generation_config(folder: Path, **values: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(("eos", "ids"), [([11, 10], {11, 10, 2}), (0, {0, 2}), (None, {0, 2})])
def test_all_ends_that_the_files_name_end_a_reply(folder, eos, ids):
    write_generation_config(folder, eos_token_id=eos)
    assert defaults_of(folder).eos_token_ids == ids


def test_a_generation_config_that_samples_is_followed(folder):
    write_generation_config(folder, do_sample=True, temperature=0.4, top_k=20, typical_p=0.9)
    sampling = defaults_of(folder).sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.4, 20, 1.0)
    assert sampling.typical_p == 0.9


def test_a_chat_model_without_defaults_gets_ours_and_a_base_model_none(folder):
    write_generation_config(folder, do_sample=False, temperature=0.1)
    assert defaults_of(folder).sampling.temperature == 0.7
    (folder / "chat_template.jinja").unlink()
    assert defaults_of(folder).sampling.temperature == 1.0


def test_impossible_defaults_are_refused(folder):
    write_generation_config(folder, do_sample=True, temperature=-1)
    with pytest.raises(CheckpointError, match="generation_config.json: temperature is -1"):
        defaults_of(folder)


def test_a_damaged_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer of tiny cannot be read"):
        load_tokenizer(located(folder))


def test_the_bundled_model_answers(capsys):
    checkpoint = located("nano")
    tokenizer, model = load_tokenizer(checkpoint), load(checkpoint)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True
    )["input_ids"]
    prompt_length = len(ids)
    for _ in range(24):
        ids.append(int(logits_from_nothing(model, ids)[-1].argmax()))
        if ids[-1] in load_generation_defaults(checkpoint, tokenizer).eos_token_ids:
            break
    assert "Paris" in tokenizer.decode(ids[prompt_length:])
