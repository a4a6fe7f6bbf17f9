"""What 8 and 4 bits, and a GGUF file's blocks, cost: divergence per token, and bytes.

    python -m benchmarks.quantization [--save NAME]

The bundled model reads a conversation of the kind it was made for; on a GPU the 7B shape with
random weights also reads random tokens, which says how much the arithmetic loses but not how much a
trained model's answers do. The reference is the same model unquantised, in bf16 on a GPU and fp32
on the CPU. KL(unquantised ‖ quantised) in nats a token; with real text also by how much the
text's own loss rises. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy import Reader, divergence
from benchmarks.lib.models import bundled_model, forms, in_form, random_7b
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.checkpoint.weights import load_tokenizer
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import weights_bytes
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings

RANDOM_TOKENS = 512
BLOCKS_MADE = ("Q8_0", "Q4_K")  # on the CPU, multiplied where they lie
FORMS = ["int8", *BLOCKS_MADE, "nf4", "nf4 double", "fp4", "fp4 double"]
CONVERSATION = Path(__file__).parent / "conversation.txt"


def real_text() -> Tensor:
    """(t,) ids of a conversation such as the bundled model was made for, in its own template."""
    tokenizer = load_tokenizer(locate(ModelSettings(model="nano"), has_cuda=False))
    lines = CONVERSATION.read_text(encoding="utf-8").splitlines()
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": line} for role, line in zip(roles, lines, strict=False)]
    return torch.tensor(tokenizer.apply_chat_template(messages)["input_ids"])


def random_tokens(model: FalconMamba, num_tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(20, model.config.vocab_size, (num_tokens,), generator=generator)


def measure(model: FalconMamba, token_ids: Tensor, asked: list[str]) -> list[dict[str, Any]]:
    """One row for each form, the unquantised first."""
    token_ids = token_ids.to(model.device)
    full = Reader(model).read(token_ids)
    rows = [{"weights": "none", "bytes": weights_bytes(model), "loss": loss(full, token_ids)}]
    for form in asked:
        packed = in_form(model, form)
        logits = Reader(packed).read(token_ids)
        kl = divergence(full, logits)
        rows.append(
            {
                "weights": form,
                "bytes": weights_bytes(packed),
                "mean_kl": kl.mean().item(),
                "worst_kl": kl.max().item(),
                "loss": loss(logits, token_ids),
                "agreement": (logits.argmax(-1) == full.argmax(-1)).float().mean().item(),
            }
        )
    return rows


def loss(logits: Tensor, token_ids: Tensor) -> float:
    """Nats a token of the text itself."""
    return F.cross_entropy(logits[:-1], token_ids[1:]).item()


def subjects(device: torch.device) -> Iterator[tuple[str, FalconMamba, Tensor]]:
    """What is measured here: a name, a model, and what it reads."""
    ops, is_gpu = select_ops(device, "auto"), device.type == "cuda"
    dtype = torch.bfloat16 if is_gpu else torch.float32
    yield "bundled, real text", bundled_model(ops, device, dtype), real_text()
    if is_gpu:
        model = random_7b(ops, device, dtype)
        yield "7B, random", model, random_tokens(model, RANDOM_TOKENS)


def add(table: Table, name: str, row: dict[str, Any]) -> None:
    is_full, has_text = row["weights"] == "none", "text" in name
    table.add(
        name,
        "unquantised" if is_full else row["weights"],
        f"{row['bytes'] / 1e9:.3f}",
        "" if is_full else f"{row['mean_kl']:.4f}",
        "" if is_full else f"{row['worst_kl']:.3f}",
        "" if is_full else f"{row['agreement']:.1%}",
        f"{row['loss']:.4f}" if has_text else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    heads = ("GB", "mean KL, nats a token", "worst KL", "same first choice", "loss")
    table, rows = Table("model", "weights", *heads), []
    for name, model, token_ids in subjects(device):
        for row in measure(model, token_ids, forms(FORMS, device)):
            add(table, name, row)
            rows.append({"model": name, "tokens": len(token_ids), **row})
    facts = about("quantization", device, select_ops(device, "auto"))
    result = {"benchmark": "quantization", "rows": rows}
    finish("Quantisation", facts, table, result, options.save)


if __name__ == "__main__":
    main()
