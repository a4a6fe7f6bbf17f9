"""Names to checkpoints, and every refusal in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from transformers import FalconMambaConfig, LlamaConfig, MambaConfig

from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER, Checkpoint, locate, resolve
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_model, make_tiny_checkpoint
from tests.support.fake_hub import COMMIT, HUB_ID, FakeHub

ROOT = Path(__file__).parents[2]
FALCON_MAMBA_7B = {
    "architectures": ["FalconMambaForCausalLM"],
    "model_type": "falcon_mamba",
    "hidden_size": 4096,
    "intermediate_size": 8192,
    "expand": 16,
    "num_hidden_layers": 64,
    "state_size": 16,
    "conv_kernel": 4,
    "time_step_rank": 256,
    "vocab_size": 65024,
    "tie_word_embeddings": False,
    "use_bias": False,
    "use_conv_bias": True,
    "residual_in_fp32": True,
    "layer_norm_epsilon": 1e-5,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), max_shard_size="40KB")


@pytest.fixture
def folder(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "tiny"))


@pytest.fixture
def hub(source, tmp_path, monkeypatch):
    with FakeHub(source, tmp_path / "cache", monkeypatch) as hub:
        yield hub


def located(model: object, **settings: str) -> Checkpoint:
    return locate(ModelSettings(model=str(model), **settings), has_cuda=False)


def refusal(model: object, **settings: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        located(model, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def config_of_7b() -> ModelConfig:
    return ModelConfig.from_json(FALCON_MAMBA_7B)


def test_the_published_7b_has_the_published_figures():
    config = config_of_7b()
    assert config.d_inner == 8192, "intermediate_size rules, not expand"
    assert config.num_parameters() == pytest.approx(7.273e9, rel=1e-4)
    assert config.num_parameters() * 2 == pytest.approx(14.55e9, rel=1e-3)
    assert config.state_bytes(conv_dtype_bytes=2) == pytest.approx(36.7e6, rel=1e-3)
    assert config.kv_bytes_per_token() == 131_072
    assert config.bytes_read_per_step(dtype_bytes=2) == pytest.approx(14.01e9, rel=1e-3)
    assert config.bytes_moved_per_step(32, 2) == pytest.approx(16.36e9, rel=1e-3)
    assert config.mixer_norm_eps == 1e-6, "absent from the published config"


def test_a_dt_rank_left_to_the_library_is_a_sixteenth_of_the_hidden_size():
    config = MambaConfig(hidden_size=64, time_step_rank="auto")
    assert ModelConfig.from_json(config.to_dict()).dt_rank == 4


@pytest.mark.parametrize("config_class", [FalconMambaConfig, MambaConfig])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"hidden_size": 100},
        {"expand": 3},
        {"expand": 16, "intermediate_size": 96},
        {"time_step_rank": 7, "state_size": 8, "conv_kernel": 3},
        {"use_bias": True, "use_conv_bias": False, "layer_norm_epsilon": 1e-3},
        {"mixer_rms_eps": 1e-2, "tie_word_embeddings": False, "residual_in_fp32": False},
        {name: value for name, value in FALCON_MAMBA_7B.items() if name != "model_type"},
    ],
    ids=str,
)
def test_a_config_is_read_as_transformers_reads_it(config_class, values):
    """Its own reading states every value, those that config.json leaves out among them."""
    theirs = config_class.from_dict(values).to_dict()
    ours = ModelConfig.from_json({"model_type": config_class.model_type, **values})
    assert ours == ModelConfig.from_json(theirs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", 64.0),
        ("num_hidden_layers", True),
        ("vocab_size", None),
        ("time_step_rank", "many"),
        ("expand", -2),
        ("layer_norm_epsilon", "small"),
        ("use_conv_bias", "yes"),
    ],
)
def test_what_is_no_dimension_is_refused_by_name(folder, key, value):
    edit_config(folder, **{key: value})
    assert f"config.json is not valid: {key} is {value!r}; allowed are" in refusal(folder)


def test_a_checkpoint_is_located_without_transformers():
    """To import it takes seconds, in which a GPU can be made ready."""
    code = (
        "import sys\n"
        "from falcon_mamba_app.service import local\n"
        "from falcon_mamba_app.checkpoint.locate import locate\n"
        "from falcon_mamba_app.settings import ModelSettings\n"
        "locate(ModelSettings(model='nano'), has_cuda=False)\n"
        "sys.exit('transformers' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert finished.returncode == 0


def test_only_falcon_mamba_normalises_dt_b_and_c():
    assert ModelConfig.from_json(MambaConfig().to_dict()).mixer_norm_eps is None
    assert ModelConfig.from_json(FalconMambaConfig().to_dict()).mixer_norm_eps == 1e-6


@pytest.mark.parametrize("family", ["falcon_mamba", "mamba"])
@pytest.mark.parametrize("overrides", [{}, {"tie_word_embeddings": False}, {"use_bias": True}])
def test_parameters_are_counted_as_torch_counts_them(family, overrides):
    model = make_model(family, **overrides)
    counted = ModelConfig.from_json(model.config.to_dict()).num_parameters()
    assert counted == sum(weight.numel() for weight in model.parameters())


def test_activations_and_families_that_the_kernels_lack_are_refused():
    with pytest.raises(CheckpointError, match="activation is 'gelu'"):
        ModelConfig.from_json(FalconMambaConfig(hidden_act="gelu").to_dict())
    with pytest.raises(CheckpointError, match="type is 'llama'"):
        ModelConfig.from_json(LlamaConfig().to_dict())


@pytest.mark.parametrize(
    ("model", "has_cuda", "target"),
    [
        ("auto", True, "tiiuae/falcon-mamba-7b-instruct"),
        ("auto", False, str(BUNDLED_FOLDER)),
        ("nano", True, str(BUNDLED_FOLDER)),
        ("mamba-130m", False, "state-spaces/mamba-130m-hf"),
        ("Falcon-Mamba-7B", False, "tiiuae/falcon-mamba-7b"),
        ("somebody/something", False, "somebody/something"),
    ],
)
def test_names_stand_for_checkpoints(model, has_cuda, target):
    assert resolve(model, has_cuda=has_cuda) == target


def test_an_unknown_word_is_answered_with_the_known_names():
    assert "allowed are auto, nano, falcon-mamba-7b" in refusal("falcon-mamba-8b")


def test_the_bundled_model_is_there():
    checkpoint = located("nano")
    assert checkpoint.is_bundled and checkpoint.has_chat_template
    assert checkpoint.config.num_parameters() == pytest.approx(24.5e6, rel=0.02)


def test_a_folder_is_a_checkpoint(folder):
    checkpoint = located(folder)
    assert checkpoint.id == "tiny" and checkpoint.has_chat_template and not checkpoint.is_bundled
    assert len(checkpoint.weight_files) > 1 and checkpoint.missing_weights == ()


def test_a_folder_without_chat_template_is_a_base_model(folder):
    (folder / "chat_template.jinja").unlink()
    assert not located(folder).has_chat_template


def test_a_missing_folder_is_named(tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("config.json", "no checkpoint: it has no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors.index.json", "no safetensors weights"),
        ("model-00002-of-00004.safetensors", "lacks 1 of its 4 weight files"),
    ],
)
def test_a_missing_file_is_named(folder, lost, words):
    (folder / lost).unlink()
    assert words in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_file_is_named(folder, name, content):
    (folder / name).write_text(content)
    assert name in refusal(folder)


def test_an_impossible_dimension_is_refused(folder):
    edit_config(folder, hidden_size="many")
    assert "config.json is not valid" in refusal(folder)


def test_another_architecture_is_refused_by_name(folder):
    edit_config(folder, architectures=["LlamaForCausalLM"], model_type="llama")
    assert refusal(folder).endswith(
        "is a LlamaForCausalLM; this app runs Mamba-1 models:"
        " FalconMambaForCausalLM, MambaForCausalLM"
    )


def test_the_original_format_of_mamba_points_to_the_converted_one(folder):
    (folder / "config.json").write_text(json.dumps({"d_model": 768, "n_layer": 24}))
    assert "use its -hf version" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "int4",
            },
            "bitsandbytes",
        ),
    ],
)
def test_checkpoints_quantised_otherwise_than_in_4_bits_of_bitsandbytes_are_refused(
    folder, config, method
):
    edit_config(folder, quantization_config=config)
    assert f"is quantised ({method}, not to nf4 or fp4)" in refusal(folder)


def test_a_null_for_the_quantisation_means_none(folder):
    edit_config(folder, quantization_config=None)
    assert located(folder).missing_weights == ()


def test_only_small_files_are_fetched_to_check_a_hub_model(hub):
    checkpoint = located(HUB_ID)
    assert checkpoint.hub_id == HUB_ID and checkpoint.commit == COMMIT
    assert not any(name.endswith(".safetensors") for name in hub.downloaded)
    assert [file.name for file in checkpoint.missing_weights] == list(checkpoint.weight_files)
    assert [file.num_bytes for file in checkpoint.missing_weights] == [
        (hub.source / name).stat().st_size for name in checkpoint.weight_files
    ]


def test_a_gated_model_says_where_to_accept_its_terms(hub):
    hub.fail(403, "GatedRepo")
    assert "is gated: accept its terms at" in refusal(HUB_ID)


def test_a_model_that_does_not_exist_or_is_private_is_told(hub):
    hub.fail(401, "RepoNotFound")
    assert "the hub has no model 'tester/tiny-mamba', or it is private" in refusal(HUB_ID)


def test_a_revision_that_does_not_exist_is_told(hub):
    hub.fail(404, "RevisionNotFound")
    assert "has no revision 'v9'" in refusal(HUB_ID, revision="v9")


def test_a_hub_that_does_not_answer_is_told(hub):
    hub.close()
    assert "the hub cannot be reached" in refusal(HUB_ID)


def test_an_offline_setting_is_told(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "the hub cannot be reached (OfflineModeIsEnabled)" in refusal(HUB_ID)


def test_half_a_download_does_not_do_without_the_hub(hub):
    located(HUB_ID)
    hub.close()
    assert "only partly downloaded" in refusal(HUB_ID)


def test_a_full_disk_is_told_before_the_download(hub, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "0.0 GB free; free some, or set HF_HOME" in refusal(HUB_ID)


def test_a_repository_without_config_is_no_checkpoint(hub, tmp_path):
    hub.source = tmp_path / "empty"
    hub.source.mkdir()
    assert "is no checkpoint of transformers" in refusal(HUB_ID)


def test_a_line_that_breaks_is_no_missing_file(hub):
    """huggingface_hub says "entry not found" for both; only one is the repository's fault."""
    hub.lose_files()
    assert "the hub cannot be reached" in refusal(HUB_ID)


def test_after_a_line_broke_the_earlier_download_is_tried(hub, folder):
    located(HUB_ID)
    hub.source = folder
    (folder / "added_tokens.json").write_text("{}")
    hub.lose_files()
    assert "only partly downloaded" in refusal(HUB_ID), "the weights, which never were"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"quantization_config": "nf4"}),
        ("config.json", {"architectures": 7, "model_type": None}),
        ("config.json", {"architectures": "FalconMambaForCausalLM", "model_type": ["x"]}),
        ("config.json", {"architectures": [["FalconMambaForCausalLM"]]}),
        ("model.safetensors.index.json", {"weight_map": {"a": 1}}),
        ("model.safetensors.index.json", {"weight_map": {"a": ["b"]}}),
    ],
)
def test_odd_types_in_a_checkpoint_are_refused_in_one_line(tmp_path, file, content):
    folder = make_tiny_checkpoint(tmp_path / "odd")
    path = folder / file
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **content}))
    with pytest.raises(CheckpointError) as caught:
        locate(ModelSettings(model=str(folder)), has_cuda=False)
    assert "\n" not in str(caught.value)
