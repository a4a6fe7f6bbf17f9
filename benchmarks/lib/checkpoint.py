"""A checkpoint of the real 7B shape with random weights, as a folder that the app can load.

    python -m benchmarks.lib.checkpoint FOLDER

For measuring what needs files: the time to start, and the service as a whole. Its tokenizer is the
bundled model's with words of letters added up to the vocabulary's size, so that every id that is
sampled has a text to be sent. Takes 15 GB on disk, and a GPU to draw the weights on in seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.lib.models import random_7b
from falcon_mamba_app.ops import REFERENCE

NANO = Path(__file__).parents[2] / "assets" / "nano"
NUM_FILES = 3  # as the published checkpoint


def write_random_7b(folder: Path) -> None:
    """Write the checkpoint; its config.json comes last, so a folder that has one is complete."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_7b(REFERENCE, device, torch.bfloat16)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, weights)
    write_tokenizer(folder, model.config.vocab_size)
    _write_json(folder / "config.json", _config(model.config))


def _write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    files: dict[str, str] = {}
    for number, names in enumerate(_in_parts(list(weights)), start=1):
        file = f"model-{number:05d}-of-{NUM_FILES:05d}.safetensors"
        part = {name: weights[name].cpu().contiguous() for name in names}
        save_file(part, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    size = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    _write_json(folder / "model.safetensors.index.json", index)


def _in_parts(names: list[str]) -> list[list[str]]:
    """The names in NUM_FILES runs of about equal length."""
    size = -(-len(names) // NUM_FILES)
    return [names[start : start + size] for start in range(0, len(names), size)]


def _config(config: Any) -> dict[str, Any]:
    return {
        "architectures": ["FalconMambaForCausalLM"],
        "model_type": "falcon_mamba",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.d_inner,
        "expand": 2,
        "num_hidden_layers": config.num_layers,
        "state_size": config.d_state,
        "conv_kernel": config.d_conv,
        "time_step_rank": config.dt_rank,
        "use_bias": config.use_bias,
        "use_conv_bias": config.use_conv_bias,
        "hidden_act": config.hidden_act,
        "residual_in_fp32": config.residual_in_fp32,
        "layer_norm_epsilon": config.norm_eps,
        "mixer_rms_eps": config.mixer_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "dtype": "bfloat16",
    }


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Its files, and the defaults for generating."""
    _write_json(folder / "tokenizer.json", _tokenizer(vocab_size))
    for name in ("tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((NANO / name).read_bytes())


def _tokenizer(vocab_size: int) -> dict[str, Any]:
    """The bundled tokenizer with five-letter words for the ids that it lacks."""
    tokenizer: dict[str, Any] = json.loads((NANO / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    # No merge leads to these words: prompts are encoded as before, replies may use them all.
    letters = itertools.product(string.ascii_lowercase, repeat=5)
    words = ("Ġ" + "".join(word) for word in letters)
    unused = (word for word in words if word not in vocabulary)
    vocabulary |= {
        word: len(vocabulary) + i
        for i, word in enumerate(_first(unused, vocab_size - len(vocabulary)))
    }
    return tokenizer


def _first(items: Any, count: int) -> list[str]:
    return list(itertools.islice(items, count))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_random_7b(parser.parse_args().folder)


if __name__ == "__main__":
    main()
