"""The metadata of a GGUF file as the fields of a config.json.

llama.cpp's converter drops what its own code does not need: the epsilon of the norms of dt, B and
C is the published models' 1e-6 unless our own key says otherwise (llama.cpp takes that of the
other norms, 1e-5), and the residual is in fp32.
"""

from __future__ import annotations

from typing import Any

from falcon_mamba_app.checkpoint.gguf.header import Header
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.model.config import DEFAULT_MIXER_NORM_EPS

ARCHITECTURE = "mamba"
MIXER_EPS_KEY = "mamba.ssm.dt_b_c_rms_epsilon"  # ours
# config.json's names, and the metadata's.
DIMENSIONS = {
    "hidden_size": "mamba.embedding_length",
    "num_hidden_layers": "mamba.block_count",
    "intermediate_size": "mamba.ssm.inner_size",
    "state_size": "mamba.ssm.state_size",
    "conv_kernel": "mamba.ssm.conv_kernel",
    "time_step_rank": "mamba.ssm.time_step_rank",
}
EPS_KEY = "mamba.attention.layer_norm_rms_epsilon"


def config_json(header: Header) -> dict[str, Any]:
    """The fields of config.json. Raises CheckpointError for another architecture, and where a
    dimension is missing.
    """
    said, name = header.metadata, header.path.name
    architecture = said.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise CheckpointError(
            f"{name} is a {architecture!r}; this app runs Mamba-1 models, which GGUF files call"
            f" {ARCHITECTURE!r}"
        )
    for key in (*DIMENSIONS.values(), EPS_KEY):
        if key not in said:
            raise CheckpointError(f"{name} does not say {key}; it cannot be loaded")
    embeddings = header.tensors.get("token_embd.weight")
    if embeddings is None or len(embeddings.shape) != 2:
        raise CheckpointError(f"{name} has no table of embeddings (token_embd.weight)")
    is_falcon = bool(said.get("mamba.ssm.dt_b_c_rms", False))
    family, architectures = (
        ("falcon_mamba", "FalconMambaForCausalLM") if is_falcon else ("mamba", "MambaForCausalLM")
    )
    values: dict[str, Any] = {
        "architectures": [architectures],
        "model_type": family,
        **{field: said[key] for field, key in DIMENSIONS.items()},
        "layer_norm_epsilon": said[EPS_KEY],
        "vocab_size": embeddings.shape[0],
        "use_bias": "blk.0.ssm_in.bias" in header.tensors,
        "use_conv_bias": "blk.0.ssm_conv1d.bias" in header.tensors,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "residual_in_fp32": True,
    }
    if is_falcon:
        values["mixer_rms_eps"] = said.get(MIXER_EPS_KEY, DEFAULT_MIXER_NORM_EPS)
    for field, key in (
        ("bos_token_id", "bos"),
        ("eos_token_id", "eos"),
        ("pad_token_id", "padding"),
    ):
        token_id = said.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            values[field] = token_id
    return values
