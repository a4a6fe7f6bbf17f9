"""Writes a checkpoint as one file: `python -m falcon_mamba_app.checkpoint.gguf.write FOLDER FILE`.

The tensors have llama.cpp's names and forms, so llama.cpp runs the file too. The tokenizer is
written in both ways: as GGUF's own lists, and as the whole tokenizer.json, which needs no guess.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import load_file

from falcon_mamba_app.checkpoint.gguf import tokenizer
from falcon_mamba_app.checkpoint.gguf.config import (
    ARCHITECTURE,
    DIMENSIONS,
    EPS_KEY,
    MIXER_EPS_KEY,
)
from falcon_mamba_app.checkpoint.gguf.tensors import IN_LAYER, WHOLE, shapes
from falcon_mamba_app.model.config import ModelConfig

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
MATRICES = (
    "in_proj.weight",
    "out_proj.weight",
    "x_proj.weight",
    "embeddings.weight",
    "lm_head.weight",
)


def file_name(name: str) -> str:
    """The name in the file of a tensor of our modules."""
    for theirs, ours in WHOLE.items():
        if ours == name:
            return theirs
    number, _, rest = name.removeprefix("backbone.layers.").partition(".")
    theirs = next(theirs for theirs, ours in IN_LAYER.items() if ours == rest)
    return f"blk.{number}.{theirs}"


def write_gguf(folder: Path, target: Path, kind: str, *, splitting: str = "gpt-2") -> None:
    """The checkpoint in `folder` as one file; its large matrices are of type `kind`."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = ModelConfig.from_json(raw)
    writer = gguf.GGUFWriter(target, ARCHITECTURE)
    writer.add_name(folder.resolve().name)
    add_dimensions(writer, config)
    add_tokenizer(writer, folder, raw, splitting)
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= load_file(path)
    for name, shape in shapes(config).items():
        tensor = weights[name].float().reshape(shape)
        if name.endswith("A_log"):
            tensor = -tensor.exp()
        if name.endswith("conv1d.weight"):
            tensor = tensor.squeeze(1)
        packed = GGMLQuantizationType[kind if name.endswith(MATRICES) else "F32"]
        block, _ = gguf.GGML_QUANT_SIZES[packed]
        if tensor.shape[-1] % block:  # as llama.cpp does
            packed = GGMLQuantizationType.F16
        numbers = gguf.quants.quantize(np.ascontiguousarray(tensor.numpy()), packed)
        writer.add_tensor(file_name(name), numbers, raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_dimensions(writer: Any, config: ModelConfig) -> None:
    """What a file says of the model's shape, for `gguf`'s writer."""
    values = {
        "hidden_size": config.hidden_size, "num_hidden_layers": config.num_layers,
        "intermediate_size": config.d_inner, "state_size": config.d_state,
        "conv_kernel": config.d_conv, "time_step_rank": config.dt_rank,
    }  # fmt: skip
    for field, key in DIMENSIONS.items():
        writer.add_uint32(key, values[field])
    writer.add_uint32("mamba.context_length", 2**20)
    writer.add_uint32("mamba.feed_forward_length", 0)
    writer.add_uint32("mamba.attention.head_count", 0)
    writer.add_float32(EPS_KEY, config.norm_eps)
    writer.add_bool("mamba.ssm.dt_b_c_rms", config.family == "falcon_mamba")
    if config.mixer_norm_eps is not None:
        writer.add_float32(MIXER_EPS_KEY, config.mixer_norm_eps)


def add_tokenizer(writer: Any, folder: Path, raw: dict[str, Any], splitting: str) -> None:
    """The tokenizer in `folder`, for as many tokens as the vocabulary of config.json (`raw`)."""
    whole = (folder / "tokenizer.json").read_text(encoding="utf-8")
    content = json.loads(whole)
    added = {token["id"]: token for token in content["added_tokens"]}
    by_id = {i: token for token, i in content["model"]["vocab"].items()}
    by_id |= {i: token["content"] for i, token in added.items()}
    count = raw["vocab_size"]
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(count)]
    kinds = [
        (tokenizer.CONTROL if added[i]["special"] else tokenizer.USER_DEFINED)
        if i in added
        else (1 if i in by_id else tokenizer.UNUSED)
        for i in range(count)
    ]
    merges = content["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_string(tokenizer.WHOLE_KEY, whole)
    said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = {token: i for i, token in by_id.items()}
    for field, add in (
        ("bos_token", writer.add_bos_token_id),
        ("eos_token", writer.add_eos_token_id),
        ("pad_token", writer.add_pad_token_id),
    ):
        token = said.get(field)
        token = token["content"] if isinstance(token, dict) else token
        if token in ids:
            add(ids[token])
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else said.get("chat_template")
    if isinstance(text, str):
        writer.add_chat_template(text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkpoint in transformers' format")
    parser.add_argument("file", type=Path, help="the GGUF file to write")
    parser.add_argument("--type", choices=TYPES, default="Q8_0", help="of the large matrices")
    parser.add_argument(
        "--splitting", choices=sorted(tokenizer.SPLITTING), default="gpt-2",
        help="llama.cpp's word for the tokenizer's way to split a text",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    write_gguf(options.folder, options.file, options.type, splitting=options.splitting)


if __name__ == "__main__":
    main()
