"""The trained weights as a transformers checkpoint, in parts small enough to carry.

`python -m training.export OUT FOLDER` puts the parts of a run together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from falcon_mamba_app.model.config import ModelConfig

PART_BYTES = 14 << 20
KEPT_IN_FP32 = ("A_log", ".D")  # as in the published 7B checkpoint's training: the recurrence


def checkpoint_bytes(state: dict[str, Tensor]) -> bytes:
    """model.safetensors: bf16, and fp32 what the recurrence is made of."""
    tensors = {
        name: tensor.detach()
        .to("cpu", torch.float32 if name.endswith(KEPT_IN_FP32) else torch.bfloat16)
        .contiguous()
        for name, tensor in state.items()
    }
    return save(tensors, metadata={"format": "pt"})


def config_json(config: ModelConfig) -> str:
    return json.dumps(
        {
            "architectures": ["FalconMambaForCausalLM"],
            "model_type": "falcon_mamba",
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.d_inner,
            "expand": config.d_inner // config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "state_size": config.d_state,
            "conv_kernel": config.d_conv,
            "time_step_rank": config.dt_rank,
            "use_bias": False,
            "use_conv_bias": True,
            "hidden_act": "silu",
            "residual_in_fp32": True,
            "layer_norm_epsilon": config.norm_eps,
            "mixer_rms_eps": config.mixer_norm_eps,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 3,
            "dtype": "bfloat16",
            "rescale_prenorm_residual": False,
        },
        indent=1,
    )


def write_parts(folder: Path, state: dict[str, Tensor], config: ModelConfig) -> list[Path]:
    """model.part0, model.part1, … of at most PART_BYTES, and config.json; each whole or absent."""
    data = checkpoint_bytes(state)
    paths = []
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        paths.append(_replace(folder / f"model.part{number}", data[start : start + PART_BYTES]))
    _replace(folder / "config.json", config_json(config).encode())
    return paths


def _replace(path: Path, data: bytes) -> Path:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    return partial.rename(path)


def join_parts(folder: Path, target: Path) -> Path:
    """The parts of `write_parts` as target/model.safetensors, beside config.json."""
    parts = sorted(folder.glob("model.part?"))
    if not parts:
        raise FileNotFoundError(f"no model.part0 in {folder}")
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    path = target / "model.safetensors"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="of training.train: config.json and model.part?")
    parser.add_argument("folder", type=Path, help="where config.json and model.safetensors go")
    options = parser.parse_args()
    join_parts(options.out, options.folder)


if __name__ == "__main__":
    main()
