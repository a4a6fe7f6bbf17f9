"""A decode step's fused operations on the CPU, against plain torch and against separate calls."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from falcon_mamba_app.ops import REFERENCE, ConvWeights, Ops, ScanWeights
from falcon_mamba_app.ops.cpu.ops import NUMBA, CpuOps

BOTH_DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)
BOTH_FAMILIES = pytest.mark.parametrize("eps", [1e-6, None], ids=["falcon_mamba", "mamba"])
# h, d, n, k, r: small and awkward, the bundled model's, and channels that end within a block
SIZES = [(40, 24, 16, 4, 5), (512, 1024, 16, 4, 32), (96, 600, 8, 3, 48)]
NUM_ROWS = (1, 2, 3, 4, 5, 9)
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


class SeparateCalls(CpuOps):
    """The same kernels, each operation by its own call, as a draft is read."""

    add_rms_norm = Ops.add_rms_norm
    projected_conv_step = Ops.projected_conv_step
    projected_scan_step = Ops.projected_scan_step


@dataclass(frozen=True)
class Layer:
    """Weights and inputs of one layer, from its norm to its gate."""

    norm: Tensor
    in_proj: Tensor
    in_bias: Tensor | None
    conv: ConvWeights
    x_proj: Tensor
    dt_proj: Tensor
    scan: ScanWeights
    hidden: Tensor
    addend: Tensor
    slots: Tensor
    conv_states: Tensor
    ssm_states: Tensor
    eps: float | None

    def run(self, ops: Ops, rows: slice = slice(None)) -> list[Tensor]:
        """Everything that a step of these rows computes, and the states after it."""
        conv_states, ssm_states = self.conv_states.clone(), self.ssm_states.clone()
        slots, (r, n) = self.slots[rows], (self.dt_proj.shape[1], len(self.scan.A))
        hidden, normed = ops.add_rms_norm(
            self.hidden[rows], self.addend[rows].unsqueeze(0), self.norm, 1e-5, self.norm.dtype
        )
        x, z = ops.projected_conv_step(
            normed, self.in_proj, self.in_bias, self.conv, conv_states=conv_states, slots=slots
        )
        y = ops.projected_scan_step(
            x, self.scan, addends=ops.matmul_step_addends(x, self.x_proj, None), sizes=[r, n, n],
            eps=self.eps, dt_weight=self.dt_proj, z=z, ssm_states=ssm_states, slots=slots,
        )  # fmt: skip
        return [hidden, normed, x, z, y, conv_states[slots], ssm_states[slots]]


def make_layer(size, dtype, eps=1e-6, *, num_rows=1, has_biases=True) -> Layer:
    h, d, n, k, r = size
    g = torch.Generator().manual_seed(sum(size))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    def matrix(num_outputs: int, num_inputs: int) -> Tensor:
        return (random(num_outputs, num_inputs) / num_inputs**0.5).to(dtype)

    return Layer(
        norm=random(h).to(dtype),
        in_proj=matrix(2 * d, h),
        in_bias=random(2 * d).to(dtype) if has_biases else None,
        conv=ConvWeights(random(k, d).to(dtype), random(d).to(dtype) if has_biases else None),
        x_proj=matrix(r + 2 * n, d),
        dt_proj=matrix(d, r),
        scan=ScanWeights(-torch.rand(n, d, generator=g) * 16, random(d), random(d) - 3),
        hidden=random(num_rows, h),
        addend=random(num_rows, h).to(dtype),
        slots=torch.randperm(num_rows + 3, generator=g)[:num_rows],
        conv_states=random(num_rows + 3, k - 1, d).to(dtype),
        ssm_states=random(num_rows + 3, n, d),
        eps=eps,
    )


@BOTH_FAMILIES
@BOTH_DTYPES
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_step_of_a_layer_equals_that_of_plain_torch(size, dtype, eps):
    for num_rows, has_biases in ((1, True), (5, False)):
        layer = make_layer(size, dtype, eps, num_rows=num_rows, has_biases=has_biases)
        for mine, theirs in zip(layer.run(NUMBA), layer.run(REFERENCE), strict=True):
            share = 1e-5 if dtype == torch.float32 else 2**-6  # up to three roundings part
            scale = max(1.0, theirs.float().abs().max().item())
            assert_close(mine, theirs, atol=share * scale, rtol=0.0)


@BOTH_FAMILIES
@BOTH_DTYPES
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fused_operations_equal_separate_ones_bit_for_bit(size, dtype, eps):
    """A draft is read by separate ones, and must give the numbers of as many steps."""
    for num_rows in NUM_ROWS:
        layer = make_layer(size, dtype, eps, num_rows=num_rows)
        for fused, separate in zip(layer.run(NUMBA), layer.run(SeparateCalls()), strict=True):
            assert torch.equal(fused, separate)


@BOTH_DTYPES
def test_a_row_of_a_layer_is_the_same_bit_for_bit_alone_and_in_any_batch(dtype):
    layer = make_layer(SIZES[2], dtype, num_rows=9)
    together = layer.run(NUMBA)
    for low, high in [(0, 1), (8, 9), (2, 4), (3, 6), (1, 5), (2, 9)]:
        for alone, among in zip(layer.run(NUMBA, slice(low, high)), together, strict=True):
            assert torch.equal(alone, among[low:high])


@pytest.mark.parametrize("num_threads", [2, 5])
def test_a_layer_on_several_threads_equals_it_on_one_bit_for_bit(monkeypatch, num_threads):
    layer = make_layer(SIZES[1], torch.float32, num_rows=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = layer.run(NUMBA)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    for mine, theirs in zip(layer.run(NUMBA), expected, strict=True):
        assert torch.equal(mine, theirs)


def test_padding_rows_may_share_the_scratch_slot_of_a_layer():
    layer = make_layer(SIZES[0], torch.float32, num_rows=4)
    layer.slots[:] = torch.tensor([0, 3, 0, 0])
    padded, alone = layer.run(NUMBA), layer.run(NUMBA, slice(1, 2))
    for mine, theirs in zip(padded, alone, strict=True):
        assert torch.equal(mine[1:2], theirs)


@BOTH_DTYPES
@pytest.mark.parametrize("num_inputs", [1, 15, 16, 17, 100])
def test_a_product_of_any_width_equals_that_of_torch(num_inputs, dtype):
    x, weight = torch.randn(7, num_inputs).to(dtype), torch.randn(37, num_inputs).to(dtype)
    share = 1e-5 if dtype == torch.float32 else 2**-7
    expected = REFERENCE.matmul_step(x, weight, None)
    scale = max(1.0, expected.float().abs().max().item())
    assert_close(NUMBA.matmul_step(x, weight, None), expected, atol=share * scale, rtol=0.0)


def test_what_is_not_a_number_stays_with_its_row():
    layer = make_layer(SIZES[0], torch.float32, num_rows=3)
    clean = layer.run(NUMBA)
    layer.addend[1, 3] = float("nan")
    for mine, before in zip(layer.run(NUMBA), clean, strict=True):
        assert torch.equal(mine[[0, 2]], before[[0, 2]])
    assert layer.run(NUMBA)[4][1].isnan().all()
