"""A whole decode step of the 7B with its matrices in bf16, 8 and 4 bits, and what Gluon gains.

    python -m benchmarks.few_rows [--rows 1 2 4 8 16 32 64] [--save NAME]

On a GPU the real 7B shape with random weights, each step one CUDA graph, as the engine replays it:
what the rows read, the model, the choice of each token, and what the next step needs of it. All
forms are measured in turns, with and without the kernels in Gluon. Elsewhere the bundled model and
no graph. The 4 bits are the nearest code values of nf4, without double quantisation. Prints a table
and one JSON line.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.decode import bytes_moved
from benchmarks.lib.models import bundled_model, in_form, random_7b
from benchmarks.lib.report import Table, about, finish
from benchmarks.lib.roofline import measure
from benchmarks.lib.timing import median_s
from falcon_mamba_app.engine.runner.step_tensors import NUM_INPUTS, NUM_PARAMS
from falcon_mamba_app.model.batch import Batch
from falcon_mamba_app.model.falcon_mamba import FalconMamba
from falcon_mamba_app.model.linear import Linear
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit
from falcon_mamba_app.ops.select import select_ops

TURNS, STEPS_OF_A_TURN = 7, 20
BLOCK = 64
NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip


def quantized(matrix: Tensor) -> Weight4bit:
    """Each number as the nearest code value; bitsandbytes is not asked for."""
    code = torch.tensor(NF4, device=matrix.device)
    blocks = matrix.float().view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    codes = torch.bucketize(blocks / absmax[:, None], (code[1:] + code[:-1]) / 2)
    first, second = codes.to(torch.uint8).view(-1, 2).unbind(1)
    shape = (matrix.shape[0], matrix.shape[1])
    return Weight4bit((first << 4) | second, absmax, code, shape, BLOCK, "nf4", matrix.dtype)


def in_4bit(model: FalconMamba) -> FalconMamba:
    """The model with the matrices of its layers in 4 bits; all else are the same tensors."""
    with torch.device("meta"):
        packed = FalconMamba(model.config, model.ops)
    packed.load_state_dict(model.state_dict(), assign=True)
    for name, module in list(packed.named_modules()):
        if isinstance(module, Linear) and ".mixer." in name:
            bias = None if module.bias is None else module.bias.data
            packed.set_submodule(name, module.in_4bit(quantized(module.weight.data), bias))
    packed.prepare()
    return packed


@contextmanager
def without_gluon() -> Iterator[None]:
    from falcon_mamba_app.ops.triton import gluon_parts

    is_available = gluon_parts.is_available
    gluon_parts.is_available = lambda: False
    try:
        yield
    finally:
        gluon_parts.is_available = is_available


class Steps:
    """Steps over the same states, captured."""

    def __init__(self, model: FalconMamba, max_rows: int) -> None:
        c, self._slots, device = model.config, max_rows + 1, model.device
        shape = (c.num_layers, self._slots)
        self._conv = torch.zeros(*shape, c.d_conv - 1, c.d_inner, dtype=model.dtype, device=device)
        self._ssm = torch.zeros(*shape, c.d_state, c.d_inner, device=device)
        self._is_eos = torch.zeros(c.vocab_size, dtype=torch.bool, device=device)

    def captured(self, model: FalconMamba, num_rows: int) -> Callable[[], None]:
        device, ops = model.device, model.ops
        last = torch.zeros(2, self._slots, dtype=torch.int64, device=device)
        last[1] = torch.arange(self._slots, device=device)
        inputs = torch.zeros(NUM_INPUTS, num_rows, device=device)
        inputs[0], inputs[1] = 17.0, torch.arange(1.0, num_rows + 1, device=device)
        params = torch.zeros(num_rows, NUM_PARAMS, device=device)

        def step() -> None:
            token_ids, slots = ops.next_inputs(inputs, last)
            logits = model.step_logits(model(Batch(token_ids, slots), self._conv, self._ssm))
            sampled = ops.sample(logits, params)
            ops.remember_tokens(
                sampled, inputs, live_slots=slots, is_eos=self._is_eos, last_tokens=last
            )

        return captured(step, device)


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The step as one launch, where there are graphs."""
    if device.type == "cpu":
        return step
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def ms_in_turns(steps: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Median milliseconds of each step."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS):
        for name in sorted(steps, reverse=bool(turn % 2)):
            took[name].append(1e3 * median_s(steps[name], device, STEPS_OF_A_TURN))
    return {name: statistics.median(each) for name, each in took.items()}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    read = measure(device).read_bytes_per_s
    ops = select_ops(device, "auto")
    make = random_7b if device.type == "cuda" else bundled_model
    bf16 = make(ops, device, torch.bfloat16)
    models = {"bf16": bf16, "int8": in_form(bf16, "int8"), "nf4": in_4bit(bf16)}
    steps = Steps(bf16, max(options.rows))
    facts = about("few_rows", device, ops) | {"reads": f"{read / 1e9:.0f} GB/s"}
    heads = ("rows", "weights", "step ms", "without Gluon", "tok/s", "of bf16", "of roofline")
    table, rows = Table(*heads), []
    for num_rows in options.rows:
        graphs = {name: steps.captured(model, num_rows) for name, model in models.items()}
        with without_gluon():
            graphs |= {f"{n} without": steps.captured(models[n], num_rows) for n in ("int8", "nf4")}
        ms = ms_in_turns(graphs, device)
        for name, model in models.items():
            row: dict[str, Any] = {
                "rows": num_rows,
                "weights": name,
                "step_ms": ms[name],
                "step_ms_without_gluon": ms.get(f"{name} without"),
                "tokens_per_s": 1e3 * num_rows / ms[name],
                "of_bf16": ms["bf16"] / ms[name],
                "share_of_roofline": 1e3 * bytes_moved(model, num_rows) / ms[name] / read,
            }
            rows.append(row)
            without = row["step_ms_without_gluon"]
            table.add(
                str(num_rows),
                name,
                f"{row['step_ms']:.3f}",
                "" if without is None else f"{without:.3f}",
                f"{row['tokens_per_s']:.0f}",
                f"{row['of_bf16']:.2f}",
                f"{row['share_of_roofline']:.1%}",
            )
    finish("Few rows", facts, table, {"read_bytes_per_s": read, "rows": rows}, options.save)


if __name__ == "__main__":
    main()
