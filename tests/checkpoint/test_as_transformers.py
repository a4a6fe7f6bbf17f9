"""Whatever a config.json says and a file holds: transformers' logits, or a refusal by name."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_model
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.engine_fixtures import States, prefill

CPU = torch.device("cpu")
PROMPT = [(7 * i) % 440 for i in range(24)]
FAMILIES = ("falcon_mamba", "mamba")
HEAD, TABLE = "lm_head.weight", "backbone.embeddings.weight"

both = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[tuple[str, bool], Path]:
    """By family, and whether the head is the embedding table."""
    folder = tmp_path_factory.mktemp("sources")
    return {
        (family, is_tied): make_tiny_checkpoint(
            folder / f"{family}_{is_tied}", family, tie_word_embeddings=is_tied
        )
        for family in FAMILIES
        for is_tied in (True, False)
    }


@pytest.fixture
def copied(sources, tmp_path):
    return lambda family, *, is_tied: Path(
        shutil.copytree(sources[family, is_tied], tmp_path / "tiny")
    )


def edit_config(folder: Path, *without: str, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    kept = {key: value for key, value in config.items() if key not in without}
    (folder / "config.json").write_text(json.dumps(kept))


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> FalconMamba:
    checkpoint = locate(ModelSettings(model=str(folder)), has_cuda=False)
    make_model = partial(FalconMamba, ops=select_ops(CPU, "reference"))
    return load_model(checkpoint, device=CPU, dtype=torch.float32, make_model=make_model)


def assert_as_transformers(folder: Path) -> FalconMamba:
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = theirs(torch.tensor([PROMPT]), use_cache=False).logits[0]
    model = load(folder)
    found = prefill(model, States(model.config), 1, PROMPT)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    return model


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    return str(caught.value)


@both
@pytest.mark.parametrize("says", [{"tie_word_embeddings": True}, {}], ids=["tied", "nothing"])
def test_a_head_that_the_file_holds_is_used_though_the_config_ties_it(copied, family, says, caplog):
    """The class ties where the config says nothing; transformers keeps what the file holds."""
    folder = copied(family, is_tied=False)
    edit_config(folder, "tie_word_embeddings")
    edit_config(folder, **says)
    model = assert_as_transformers(folder)
    assert not model.config.tie_word_embeddings
    assert model.lm_head.weight is not model.backbone.embeddings.weight
    assert "the file holds another" in caplog.text


@both
def test_a_head_equal_to_the_table_or_a_table_that_is_missing_are_as_in_transformers(
    copied, family
):
    folder = copied(family, is_tied=False)
    edit_config(folder, tie_word_embeddings=True)
    edit_tensors(folder, lambda tensors: tensors.update({HEAD: tensors[TABLE].clone()}))
    assert_as_transformers(folder)
    edit_tensors(folder, lambda tensors: tensors.pop(TABLE))
    assert_as_transformers(folder)


@both
def test_a_head_that_the_config_unties_and_the_file_lacks_is_refused(copied, family):
    folder = copied(family, is_tied=True)
    edit_config(folder, tie_word_embeddings=False)
    assert "lm_head.weight" in refusal(folder)


SAME_MODEL = [
    {"layer_norm_epsilon": 1e-2},
    {"mixer_rms_eps": 1e-2},
    {"rms_norm_eps": 1e-2, "norm_eps": 1e-2, "rms_norm": False},
    {"residual_in_fp32": False},
    {"expand": 16},
    {"hidden_act": "swish"},
    {"time_step_min": 0.5, "time_step_max": 9.0, "time_step_scale": 3.0, "time_step_floor": 0.5},
    {"time_step_limit": [0.0, 1e-3], "time_step_init_scheme": "constant"},
    {"use_mambapy": True},
    {"use_associative_scan": False, "use_cache": False},
    {"n_groups": 2, "num_heads": 4, "head_dim": 8, "ssm_cfg": {"layer": "Mamba2"}},
    {"dtype": "bfloat16", "torch_dtype": "float16"},
]


@both
@pytest.mark.parametrize("values", SAME_MODEL, ids=str)
def test_config_keys_mean_what_they_mean_to_transformers(copied, family, values):
    folder = copied(family, is_tied=True)
    edit_config(folder, **values)
    assert_as_transformers(folder)


@both
def test_keys_that_a_config_leaves_out_have_transformers_defaults(copied, family):
    folder = copied(family, is_tied=True)
    keys = ("residual_in_fp32", "use_conv_bias", "use_bias", "layer_norm_epsilon", "hidden_act")
    edit_config(folder, *keys, "conv_kernel", "mixer_rms_eps", "intermediate_size")
    assert_as_transformers(folder)


def test_the_family_is_the_model_type_whatever_the_architecture_is_called(copied):
    folder = copied("falcon_mamba", is_tied=True)
    edit_config(folder, architectures=["MambaForCausalLM"])
    assert_as_transformers(folder)
    edit_config(folder, model_type="mamba")
    assert_as_transformers(folder)


REFUSED = [
    ({"rescale_prenorm_residual": True}, "rescale_prenorm_residual is true"),
    ({"hidden_act": "gelu"}, "activation is 'gelu'"),
    ({"use_bias": True}, "mixer.in_proj.bias"),
    ({"use_conv_bias": False}, "mixer.conv1d.bias"),
    ({"num_hidden_layers": 2}, "backbone.layers.2."),
    ({"time_step_rank": 8}, "mixer.dt_proj.weight has the shape"),
    ({"intermediate_size": 32}, "has the shape"),
    ({"vocab_size": 400}, "embeddings.weight has the shape"),
    ({"model_type": "mamba2"}, "the model's type is 'mamba2'"),
]


@pytest.mark.parametrize("values,reason", REFUSED, ids=str)
def test_a_config_that_means_another_model_than_the_file_is_refused(copied, values, reason):
    folder = copied("falcon_mamba", is_tied=True)
    edit_config(folder, **values)
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.bias",
        "backbone.norm_f.bias",
        "backbone.layers.0.mixer.dt_layernorm.weight",
        "backbone.layers.0.mixer.x_proj.bias",
        "backbone.layers.0.mixer.in_proj.lora_A.weight",
        "backbone.layers.0.rotary_emb.inv_freq",
        "model.embed_tokens.weight",
        "score.weight",
    ],
)
def test_a_tensor_that_the_model_has_no_use_for_is_refused_by_its_name(copied, name):
    folder = copied("falcon_mamba", is_tied=True)
    edit_tensors(folder, lambda tensors: tensors.update({name: torch.ones(4)}))
    assert name in refusal(folder)


def test_tensors_of_the_model_under_other_names_are_refused_as_missing(copied):
    folder = copied("falcon_mamba", is_tied=True)

    def rename(tensors):
        for key in list(tensors):
            tensors[f"model.{key}"] = tensors.pop(key)

    edit_tensors(folder, rename)
    assert "backbone.embeddings.weight" in refusal(folder)
