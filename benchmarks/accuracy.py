"""How far bf16 lies from an fp32 oracle, ours beside transformers, on the very same weights.

    python -m benchmarks.accuracy [--tokens 256] [--save NAME]

On a GPU the real 7B shape with random weights that remember, elsewhere the bundled model on a text.
The oracle is transformers in fp32 over the whole prompt at once. Each path's figure is the
divergence KL(oracle ‖ path) per token in nats, its mean and its worst over the prompt. "Carried"
reads half of the prompt in pieces of odd lengths and the rest a token at a time, as a reply is
written, so every hand-over of the state is in it; "forgetful" starts from nothing halfway and must
be far off, or the weights would not remember and the others would prove nothing. What 4 bits lose
is shown beside it, against the same oracle. Prints a table and one JSON line. Exit status 1 where
ours is above a bound.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchmarks.lib.models import FALCON_MAMBA_7B, bundled_model, forms, in_form, random_7b
from benchmarks.lib.peers import transformers_over
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER, locate
from falcon_mamba_app.checkpoint.weights import load_tokenizer
from falcon_mamba_app.engine.states.pool import StatePool
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import ModelSettings

MAX_MEAN_KL = 1e-3
BOUNDED = ("ours, one-shot", "ours, carried")
PIECES = (1, 2, 3, 37, 5)  # lengths that take turns in the carried path
POSITIONS_AT_ONCE = 64  # of 65,024 logits in fp64: 33 MB


@torch.inference_mode()
def one_shot(theirs: Any, prompt: Tensor) -> Tensor:
    """(t,) → (t, v) fp32 by transformers' one forward pass."""
    logits: Tensor = theirs(prompt.unsqueeze(0), use_cache=False).logits[0]
    return logits.float()


class Reader:
    """Our model over one slot, every position's logits kept."""

    def __init__(self, model: FalconMamba) -> None:
        self._model = model
        self._pool = StatePool(model.config, max_running=1, device=model.device, dtype=model.dtype)
        self._slot = self._pool.take()

    @torch.inference_mode()
    def read(self, prompt: Tensor) -> Tensor:
        """(t,) → (t, v) fp32, as a chunk of a prompt is read."""
        starts = torch.tensor([0, len(prompt)], device=prompt.device)
        return self._model.prompt_logits(self._run(Batch(prompt, self._slots(prompt), starts)))

    @torch.inference_mode()
    def read_on(self, prompt: Tensor) -> None:
        """`read` without logits, as the engine reads all of a prompt but its last token."""
        starts = torch.tensor([0, len(prompt)], device=prompt.device)
        self._run(Batch(prompt, self._slots(prompt), starts))

    @torch.inference_mode()
    def write(self, tokens: Tensor) -> Tensor:
        """(t,) → (t, v) fp32, each token fed by a decode step of its own."""
        steps = [
            self._model.step_logits(self._run(Batch(token, self._slots(token)))).clone()
            for token in tokens.split(1)
        ]
        return torch.cat(steps)

    def forget(self) -> None:
        self._pool.clear(self._slot)

    def _slots(self, like: Tensor) -> Tensor:
        return torch.tensor([self._slot], device=like.device)

    def _run(self, batch: Batch) -> Tensor:
        hidden: Tensor = self._model(batch, self._pool.conv_states, self._pool.ssm_states)
        return hidden


def carried(model: FalconMamba, prompt: Tensor) -> Tensor:
    reader, half = Reader(model), len(prompt) // 2
    return torch.cat([*map(reader.read, pieces(prompt[:half])), reader.write(prompt[half:])])


def forgetful(model: FalconMamba, prompt: Tensor) -> Tensor:
    reader, half = Reader(model), len(prompt) // 2
    before = reader.read(prompt[:half])
    reader.forget()
    return torch.cat([before, reader.read(prompt[half:])])


def pieces(prompt: Tensor) -> Iterable[Tensor]:
    start = 0
    for length in itertools.cycle(PIECES):
        if start >= len(prompt):
            return
        yield prompt[start : start + length]
        start += length


def divergence(oracle: Tensor, path: Tensor) -> Tensor:
    """(t, v), (t, v) → (t,): KL(oracle ‖ path) in nats, summed in fp64."""
    parts = []
    for p, q in zip(oracle.split(POSITIONS_AT_ONCE), path.split(POSITIONS_AT_ONCE), strict=True):
        p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        parts.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(parts)


def prompt_for(model: FalconMamba, num_tokens: int) -> Tensor:
    """(t,): text for the bundled model, ids at random for random weights."""
    if model.config.vocab_size == FALCON_MAMBA_7B.vocab_size:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(20, model.config.vocab_size, (num_tokens,), generator=generator)
    tokenizer = load_tokenizer(locate(ModelSettings(model="nano"), has_cuda=False))
    text = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    ids: list[int] = tokenizer(text)["input_ids"][:num_tokens]
    return torch.tensor(ids)


def measure(model: FalconMamba, num_tokens: int) -> dict[str, dict[str, float]]:
    """Mean and worst divergence by path. The model is moved to fp32 for the oracle."""
    prompt = prompt_for(model, num_tokens).to(model.device)
    theirs = transformers_over(model)
    paths = {
        "transformers, one-shot": one_shot(theirs, prompt),
        "ours, one-shot": Reader(model).read(prompt),
        "ours, carried": carried(model, prompt),
        "forgetful": forgetful(model, prompt),
    }
    for form in forms(["nf4"], model.device):
        paths[f"ours in {form}, carried"] = carried(in_form(model, form), prompt)
    oracle = one_shot(theirs.float(), prompt)
    found = {name: divergence(oracle, logits) for name, logits in paths.items()}
    found["forgetful"] = found["forgetful"][len(prompt) // 2 :]
    return {
        name: {"mean_kl": values.mean().item(), "worst_kl": values.max().item()}
        for name, values in found.items()
    }


def faults(found: dict[str, dict[str, float]]) -> list[str]:
    """What is above its bound, a sentence each."""
    mean = {name: values["mean_kl"] for name, values in found.items()}
    faults = [
        f"{name} is {mean[name]:.2e} from the oracle; allowed are {MAX_MEAN_KL:.0e}"
        for name in BOUNDED
        if not mean[name] <= MAX_MEAN_KL
    ]
    if not mean["ours, carried"] <= mean["transformers, one-shot"]:
        faults.append("the carried path is further from the oracle than transformers is")
    if not mean["forgetful"] > 10 * mean["ours, carried"]:
        faults.append("these weights do not remember; the figures prove nothing")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ops = select_ops(device, options.kernels)
    model = (random_7b if device.type == "cuda" else bundled_model)(ops, device, torch.bfloat16)
    found = measure(model, options.tokens)
    table = Table("path in bf16", "mean KL, nats a token", "worst KL", "pass")
    for name, values in found.items():
        passes = f"≤ {MAX_MEAN_KL:.0e}" if name in BOUNDED else ""
        table.add(name, f"{values['mean_kl']:.2e}", f"{values['worst_kl']:.2e}", passes)
    result = {"benchmark": "accuracy", "tokens": options.tokens, "paths": found}
    facts = about("accuracy", device, ops) | {"oracle": "transformers, float32, one-shot"}
    finish("Accuracy", facts, table, result, options.save)
    found_faults = faults(found)
    print("\n".join(found_faults), file=sys.stderr)
    return 1 if found_faults else 0


if __name__ == "__main__":
    sys.exit(main())
