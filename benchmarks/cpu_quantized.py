"""Packed matrices on this machine's CPU, in the 7B's shape: decoding, several rows, and prompts.

    GOMP_SPINCOUNT=100 python -m benchmarks.cpu_quantized [--quick] [--save NAME]

A few layers with random weights and the head are timed, and a token of all 64 layers is computed
from that: speed does not depend on the weights' values, and the layers exceed every cache. Before
each figure the machine's read bandwidth is measured with the same threads; the share is the median
of such pairs, because a shared machine changes from minute to minute. Prompts are compared with the
same matrices unpacked. The spin count is the app's own: OpenMP's waiting threads would hold the
cores that a tile is unpacked on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cpu import about
from benchmarks.lib import report
from benchmarks.lib.models import FALCON_MAMBA_7B
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.config import ModelConfig
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import EmbeddingPacked, Linear, LinearPacked
from falcon_mamba_app.ops.reference.matrix import Packed
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_ggml import BLOCKS, WeightGgml
from falcon_mamba_app.ops.select import select_ops

CPU = torch.device("cpu")
KINDS = ("Q8_0", "Q4_K", "int8")
ROWS = (1, 4)
MIN_SHARE, MIN_ROWS_RATIO, MIN_PROMPT_RATIO = 0.65, 2.0, 0.9
READ_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Effort:
    config: ModelConfig
    rounds: int
    prompt: int


FULL = Effort(replace(FALCON_MAMBA_7B, num_layers=2), rounds=9, prompt=512)
QUICK = Effort(
    replace(FULL.config, num_layers=1, hidden_size=256, d_inner=512, vocab_size=512, dt_rank=32),
    rounds=1,
    prompt=8,
)


@dataclass(frozen=True, slots=True)
class Figures:
    kind: str
    tokens_per_s: float  # one row, all layers
    share: float  # of the bandwidth beside it
    rows_ratio: float  # tokens per second of four rows over one
    prompt_ratio: float  # of the unpacked matrices' time over the packed ones'


class Shape:
    """A model of random packed matrices, with its states."""

    def __init__(self, config: ModelConfig, kind: str) -> None:
        self.config, self.kind = config, kind
        self.model = _random_model(config, kind)
        self._conv, self._ssm = map(torch.zeros, config.state_shapes.of_slots(1 + max(ROWS)))

    @property
    def bytes_of_token(self) -> int:
        """What one row of all layers reads: matrices, head, and its state twice."""
        packed = [m for m in self.model.modules() if isinstance(m, LinearPacked)]
        head = self.model.lm_head.weight.nbytes
        layers = sum(m.weight.nbytes for m in packed) - head + 2 * self.config.state_bytes(4)
        return layers * _scale(self.config) + head

    @torch.inference_mode()
    def token_s(self, num_rows: int) -> float:
        """Seconds of a step of all layers."""
        batch = Batch(torch.zeros(num_rows, dtype=torch.int64), torch.arange(1, num_rows + 1))
        layers_s, normed = _timed(partial(self.model, batch, self._conv, self._ssm))
        head_s, _ = _timed(partial(self.model.step_logits, normed))
        return layers_s * _scale(self.config) + head_s

    @torch.inference_mode()
    def prompt_s(self, num_tokens: int) -> float:
        """Seconds to read a prompt in these layers."""
        starts, ids = torch.tensor([0, num_tokens]), torch.zeros(num_tokens, dtype=torch.int64)
        batch = Batch(ids, torch.tensor([1]), starts)
        return _timed(partial(self.model, batch, self._conv, self._ssm))[0]

    def unpack(self) -> None:
        """Turn the layers' matrices into those of `--dtype`."""
        for name, module in list(self.model.backbone.layers.named_modules()):
            if isinstance(module, LinearPacked):
                outputs, inputs = module.weight.shape
                dense = Linear(inputs, outputs, self.model.ops, bias=module.bias is not None)
                dense.weight = nn.Parameter(_dense(module), requires_grad=False)
                dense.bias = module.bias  # type: ignore[assignment]
                self.model.backbone.layers.set_submodule(name, dense)


def _dense(module: LinearPacked) -> Tensor:
    assert not isinstance(module.weight, Tensor)
    return module._ops.dequantize(module.weight, torch.float32)


def _scale(config: ModelConfig) -> int:
    return FALCON_MAMBA_7B.num_layers // config.num_layers


def _random_model(config: ModelConfig, kind: str) -> FalconMamba:
    ops = select_ops(CPU, "numba")
    with torch.device("meta"):
        model = FalconMamba(config, ops)
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear):
            shape = module.out_features, module.in_features
            model.set_submodule(name, module.packed(random_matrix(*shape, kind)))
    table = random_matrix(config.vocab_size, config.hidden_size, kind)
    model.backbone.embeddings = EmbeddingPacked(table, torch.float32, model.ops)
    model.to_empty(device=CPU)
    for weight in model.parameters():
        nn.init.ones_(weight)
    model.prepare()
    return model


def random_matrix(num_outputs: int, num_inputs: int, kind: str) -> Packed:
    if kind == "int8":
        values = torch.randint(-127, 128, (num_outputs, num_inputs), dtype=torch.int8)
        return Weight8bit(values, torch.full((num_outputs, 1), 1e-4))
    if num_inputs % BLOCKS[kind][0]:
        kind = "Q8_0"
    block, block_bytes = BLOCKS[kind]
    # As half-precision scales, bytes up to 15 are close to zero, wherever they lie.
    data = torch.randint(0, 16, (num_outputs, num_inputs // block * block_bytes), dtype=torch.uint8)
    return WeightGgml(data, kind)


def _timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def measure(kind: str, effort: Effort) -> Figures:
    shape, source = Shape(effort.config, kind), torch.ones(READ_BYTES // 4)
    shape.token_s(1), shape.token_s(4)  # compiles
    shares, seconds = [], {rows: [0.0] * 0 for rows in ROWS}
    for _ in range(effort.rounds):
        bandwidth = READ_BYTES / min(_timed(source.sum)[0] for _ in range(2))
        for rows in ROWS:
            seconds[rows].append(shape.token_s(rows))
        shares.append(shape.bytes_of_token / seconds[1][-1] / bandwidth)
    ratios = [4 * one / four for one, four in zip(seconds[1], seconds[4], strict=True)]
    rounds = max(1, effort.rounds // 4)
    packed_s = min(shape.prompt_s(effort.prompt) for _ in range(rounds))
    shape.unpack()
    unpacked_s = min(shape.prompt_s(effort.prompt) for _ in range(rounds))
    return Figures(
        kind,
        1 / min(seconds[1]),
        statistics.median(shares),
        statistics.median(ratios),
        unpacked_s / packed_s,
    )


def shortfalls(figures: list[Figures]) -> list[str]:
    """The measures below their floors, in words."""
    return [
        f"{row.kind}: {what} is {value:.2f}, not {floor}"
        for row in figures
        for what, value, floor in (
            ("share of the bandwidth", row.share, MIN_SHARE),
            ("four rows over one", row.rows_ratio, MIN_ROWS_RATIO),
            ("a prompt's speed over the unpacked", row.prompt_ratio, MIN_PROMPT_RATIO),
        )
        if value < floor
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small matrices, for CI")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    torch.manual_seed(0)
    figures = [measure(kind, effort) for kind in KINDS]
    table = report.Table(
        "matrices", "one row, tok/s", "share of the read bandwidth", "four rows ÷ one",
        f"prompt of {effort.prompt}, speed ÷ unpacked", words=1,
    )  # fmt: skip
    for row in figures:
        table.add(
            row.kind, f"{row.tokens_per_s:.2f}", f"{row.share:.0%}", f"{row.rows_ratio:.2f}",
            f"{row.prompt_ratio:.2f}",
        )  # fmt: skip
    facts = {
        **about("cpu_quantized"),
        "threads": str(torch.get_num_threads()),
        "layers": f"{effort.config.num_layers} timed, of {FALCON_MAMBA_7B.num_layers}",
        "rounds": f"median of {effort.rounds}; tok/s: the best",
    }
    result = {"figures": [asdict(row) for row in figures]}
    report.finish("Packed matrices on a CPU, 7B shape", facts, table, result, options.save)
    missed = shortfalls(figures)
    print(*(f"BELOW THE FLOOR: {words}" for words in missed), sep="\n")
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
