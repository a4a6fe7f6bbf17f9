"""The operations at the 7B model's shapes: microseconds a layer, and how near to the limit.

    python -m benchmarks.kernels [--save NAME]

Prints a table and one JSON line. The limit is the time to move an operation's bytes, each once, at
the copy speed measured in the same run; for a matrix product, which writes next to nothing, at the
read speed; for the scan over a prompt the time of its d·n exponentials a token, where that is
longer. On a CPU: the reference operations at small shapes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.lib import roofline, timing
from benchmarks.lib.report import Table, about, finish
from falcon_mamba_app.engine.runner.penalties import pack_params
from falcon_mamba_app.ops import ConvWeights, Ops, ScanWeights
from falcon_mamba_app.protocol import SamplingParams

CACHE_BYTES = 300_000_000  # of the matrices that take turns: six times an H100's L2


@dataclass(frozen=True, slots=True)
class Shapes:
    layers: int  # this many sets of tensors take turns, so that none is found in the cache
    h: int
    d: int
    r: int
    n: int = 16
    k: int = 4
    prompts: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    v: int = 0


SHAPES_7B = Shapes(64, 4096, 8192, 256, prompts=(256, 2048), rows=(1, 8, 32, 64), v=65024)
SHAPES_CPU = Shapes(4, 512, 1024, 32, prompts=(64,), rows=(1, 8), v=8192)


@dataclass(frozen=True, slots=True)
class Work:
    op: str
    shape: str
    num_bytes: int
    num_exponentials: int
    calls: Sequence[Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Row:
    op: str
    shape: str
    us: float
    mb: float
    gb_per_s: float
    limit_us: float
    limit: str
    share: float  # limit_us / us


class Layer:
    """The weights and states of one layer, and activations for up to `t` tokens."""

    def __init__(self, shapes: Shapes, t: int, num_slots: int, device: torch.device) -> None:
        s, d, n = shapes, shapes.d, shapes.n
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

        def normal(*size: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*size, device=device).to(dtype)

        self.hidden, self.norm_weight = normal(t, s.h, dtype=torch.float32), normal(s.h)
        self.x, self.z = normal(t, 2 * d).chunk(2, dim=-1)
        self.mixed, self.projected = normal(1, t, s.h), normal(1, t, s.r + 2 * n)
        self.B, self.C = normal(t, 2 * n).split([n, n], dim=-1)
        self.delta, self.dt_weight = normal(t, d), normal(d, s.r)
        self.conv = ConvWeights(normal(s.k, d), normal(d))
        A = -torch.arange(1.0, n + 1, device=device)[:, None].repeat(1, d)
        D, dt_bias = (normal(d, dtype=torch.float32) for _ in range(2))
        self.scan = ScanWeights(A, D, dt_bias)
        self.conv_states = normal(num_slots, s.k - 1, d)
        self.ssm_states = normal(num_slots, n, d, dtype=torch.float32)


def works(ops: Ops, shapes: Shapes, device: torch.device) -> Iterator[Work]:
    for t in shapes.prompts:
        # 64 layers of activations would take 10 GB; 6 are already six times the cache.
        layers = [Layer(shapes, t, 2, device) for _ in range(min(6, shapes.layers))]
        yield from norm_works(ops, shapes, layers, f"{t} tokens", t)
        yield from prefill_works(ops, shapes, layers, t, device)
    for b in shapes.rows:
        layers = [Layer(shapes, b, b + 1, device) for _ in range(shapes.layers)]
        yield from norm_works(ops, shapes, layers, f"{b} rows", b)
        yield from step_works(ops, shapes, layers, b, device)
        yield from sample_works(ops, shapes, b, device)
    yield from linear_works(ops, shapes, device)


def sample_works(ops: Ops, shapes: Shapes, b: int, device: torch.device) -> Iterator[Work]:
    """Tokens from logits as flat as random weights make them, and from some that know better."""
    sampling = SamplingParams(temperature=0.7, top_p=0.9)
    params = pack_params([sampling] * b, [0.5] * b).to(device)
    for kind, spread in [("flat", 1.0), ("peaked", 4.0)]:
        rows = [torch.randn(b, shapes.v, device=device) * spread for _ in range(4)]
        calls = [partial(ops.sample, logits, params) for logits in rows]
        yield Work(f"sample, {kind}", f"{b} rows", b * shapes.v * 4, 0, calls)


def linear_works(ops: Ops, shapes: Shapes, device: torch.device) -> Iterator[Work]:
    """The matrix products of decoding, by `ops` and by torch, as they are called."""
    s, dtype = shapes, torch.bfloat16 if device.type == "cuda" else torch.float32
    projected = s.r + 2 * s.n
    for i, o in [(s.h, 2 * s.d), (s.d, s.h), (s.d, projected), (s.r, s.d), (s.h, s.v)]:
        num_bytes = i * o * dtype.itemsize
        copies = max(2, min(40, CACHE_BYTES // num_bytes))
        weights = [torch.randn(o, i, device=device).to(dtype) for _ in range(copies)]
        ours = ops.matmul_step if o in (2 * s.d, s.d) else ops.matmul_step_addends
        for rows in sorted({1, *s.rows}):
            x = torch.randn(rows, i, device=device).to(dtype)
            products: dict[str, Callable[[Tensor, Tensor, None], Tensor]]
            products = {"linear": ours, "torch's linear": F.linear}
            for op, product in products.items():
                calls = [partial(product, x, weight, None) for weight in weights]
                yield Work(op, f"{rows} rows, {i} → {o}", num_bytes, 0, calls)


def norm_works(ops: Ops, shapes: Shapes, layers: list[Layer], shape: str, t: int) -> Iterator[Work]:
    size = layers[0].x.element_size()

    def block(layer: Layer) -> Callable[[], tuple[Tensor, Tensor]]:
        v = layer
        return lambda: ops.add_rms_norm(v.hidden, v.mixed, v.norm_weight, 1e-5, v.x.dtype)

    def mixer(layer: Layer) -> Callable[[], tuple[Tensor, ...]]:
        sizes = [shapes.r, shapes.n, shapes.n]
        return lambda: ops.split_rms_norm(layer.projected, sizes, 1e-6, layer.x.dtype)

    num_bytes = t * shapes.h * (8 + 2 * size)
    yield Work("add_rms_norm", shape, num_bytes, 0, [block(layer) for layer in layers])
    num_bytes = t * (shapes.r + 2 * shapes.n) * 2 * size
    yield Work("split_rms_norm", shape, num_bytes, 0, [mixer(layer) for layer in layers])


def prefill_works(
    ops: Ops, shapes: Shapes, layers: list[Layer], t: int, device: torch.device
) -> Iterator[Work]:
    d, n, k, size = shapes.d, shapes.n, shapes.k, layers[0].x.element_size()
    slots, starts = torch.tensor([1], device=device), torch.tensor([0, t], device=device)

    def conv(v: Layer) -> Callable[[], Tensor]:
        return lambda: ops.conv_prefill(
            v.x, v.conv, conv_states=v.conv_states, slots=slots, query_starts=starts
        )

    def scan(v: Layer) -> Callable[[], Tensor]:
        x = v.x.contiguous()
        return lambda: ops.scan_prefill(
            x,
            v.scan,
            dt=v.delta,
            B=v.B,
            C=v.C,
            z=v.z,
            ssm_states=v.ssm_states,
            slots=slots,
            query_starts=starts,
        )

    num_bytes = (2 * t + 2 * (k - 1) + k + 1) * d * size
    yield Work("conv_prefill", f"{t} tokens", num_bytes, 0, [conv(v) for v in layers])
    num_bytes = (4 * d + 2 * n) * t * size + (3 * n + 2) * d * 4
    yield Work("scan_prefill", f"{t} tokens", num_bytes, t * d * n, [scan(v) for v in layers])


def step_works(
    ops: Ops, shapes: Shapes, layers: list[Layer], b: int, device: torch.device
) -> Iterator[Work]:
    d, n, k, size = shapes.d, shapes.n, shapes.k, layers[0].x.element_size()
    slots = torch.arange(b, 0, -1, device=device)

    def conv(v: Layer) -> Callable[[], Tensor]:
        return lambda: ops.conv_step(v.x, v.conv, conv_states=v.conv_states, slots=slots)

    def scan(v: Layer) -> Callable[[], Tensor]:
        x = v.x.contiguous()
        return lambda: ops.scan_step(
            x,
            v.scan,
            dt=v.delta,
            B=v.B,
            C=v.C,
            z=v.z,
            ssm_states=v.ssm_states,
            slots=slots,
        )

    num_bytes = ((2 + 2 * (k - 1)) * b + k + 1) * d * size
    yield Work("conv_step", f"{b} rows", num_bytes, 0, [conv(v) for v in layers])

    def projected(v: Layer) -> Callable[[], Tensor]:
        x = v.x.contiguous()
        return lambda: ops.projected_scan_step(
            x,
            v.scan,
            addends=v.projected,
            sizes=[shapes.r, n, n],
            eps=1e-6,
            dt_weight=v.dt_weight,
            z=v.z,
            ssm_states=v.ssm_states,
            slots=slots,
        )

    num_bytes = (4 * d + 2 * n) * b * size + (2 * b + 1) * n * d * 4 + 2 * d * 4
    yield Work("scan_step", f"{b} rows", num_bytes, b * d * n, [scan(v) for v in layers])
    num_bytes += d * shapes.r * size
    shape = f"{b} rows"
    yield Work("projected_scan_step", shape, num_bytes, b * d * n, [projected(v) for v in layers])


def measure(work: Work, best: roofline.Roofline, device: torch.device) -> Row:
    seconds = timing.median_s_of_each(list(work.calls), device)
    is_product = "linear" in work.op
    bytes_per_s = best.read_bytes_per_s if is_product else best.copy_bytes_per_s
    limit_s, limit = work.num_bytes / bytes_per_s, "bytes"
    if best.exponentials_per_s:
        limit_s, limit = max(
            (limit_s, limit), (work.num_exponentials / best.exponentials_per_s, "exp")
        )
    return Row(
        op=work.op,
        shape=work.shape,
        us=round(seconds * 1e6, 2),
        mb=round(work.num_bytes / 1e6, 3),
        gb_per_s=round(work.num_bytes / seconds / 1e9, 1),
        limit_us=round(limit_s * 1e6, 2),
        limit=limit,
        share=round(limit_s / seconds, 3),
    )


HEADS = ("operation", "shape", "limit", "µs", "MB", "GB/s", "limit µs", "share of the limit")


def measure_all(
    ops: Ops, shapes: Shapes, best: roofline.Roofline, device: torch.device
) -> tuple[list[Row], Table]:
    table, rows = Table(*HEADS, words=3), []
    with torch.inference_mode():
        for work in works(ops, shapes, device):
            row = measure(work, best, device)
            figures = (f"{row.us:.2f}", f"{row.mb:.2f}", f"{row.gb_per_s:.0f}")
            table.add(
                row.op, row.shape, row.limit, *figures, f"{row.limit_us:.2f}", f"{row.share:.0%}"
            )
            rows.append(row)
    return rows, table


def choose() -> tuple[Ops, Shapes, torch.device]:
    if torch.cuda.is_available():
        from falcon_mamba_app.ops.triton.ops import TRITON

        return TRITON, SHAPES_7B, torch.device("cuda")
    from falcon_mamba_app.ops import REFERENCE

    return REFERENCE, SHAPES_CPU, torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json and .md")
    save = parser.parse_args().save
    torch.manual_seed(0)
    ops, shapes, device = choose()
    best = roofline.measure(device)
    rows, table = measure_all(ops, shapes, best, device)
    speeds = f"copy {best.copy_bytes_per_s / 1e9:.0f} GB/s, read {best.read_bytes_per_s / 1e9:.0f}"
    if best.exponentials_per_s:
        speeds += f", {best.exponentials_per_s / 1e9:.0f} G exponentials/s"
    facts = {**about("kernels", device, ops), "measured limits": speeds}
    finish("Kernels", facts, table, {**asdict(best), "rows": [asdict(row) for row in rows]}, save)


if __name__ == "__main__":
    main()
