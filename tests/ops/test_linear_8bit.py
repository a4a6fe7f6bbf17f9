"""Matrices in 8 bits: how they are made, and each implementation's product against fp64.

Without a GPU the kernels run in Triton's interpreter; with one the 7B shapes run too.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from falcon_mamba_app.ops import REFERENCE, ConvWeights
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit, dequantize, quantize
from falcon_mamba_app.ops.triton import few_rows_8bit, gluon_parts
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.fused_steps import projected_scans

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
# The interpreter multiplies the bits of bf16 as if they were integers.
HALF = torch.bfloat16 if HAS_GPU else torch.float16
gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")]
pytestmark = pytest.mark.usefixtures("poisoned_outputs")

SHAPES_7B = [(16_384, 4096), (288, 8192), (8192, 256), (4096, 8192)]
# Slices of the model's matrices, then sizes that fill no tile.
SLICES = [(8, 4096), (8, 8192), (64, 256), (40, 192), (3, 20)]
ON_HALVES = [REFERENCE, TRITON]
ON_FLOATS = [REFERENCE, NUMBA, TRITON]


def make_weight(num_outputs: int, num_inputs: int, *, group: int | None = None) -> Weight8bit:
    """With a scale for each row, or for each group of inputs."""
    generator = torch.Generator().manual_seed(num_outputs + num_inputs)
    matrix = torch.randn(num_outputs, num_inputs, generator=generator) * num_inputs**-0.5
    groups = quantize(matrix.view(-1, group or num_inputs))
    values, scale = groups.values.view(matrix.shape), groups.scale.view(num_outputs, -1)
    return Weight8bit(values, scale).to(DEVICE)


def rows(num_rows: int, num_inputs: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows, as the model hands them over."""
    generator = torch.Generator().manual_seed(num_rows)
    wide = torch.randn(num_rows, num_inputs + 32, generator=generator)
    return wide.to(DEVICE, dtype)[:, :num_inputs]


def product(x: Tensor, weight: Weight8bit) -> Tensor:
    return x.double() @ dequantize(weight, torch.float64).T


def on_device(ops):
    """Skipped where numba would get a GPU's tensors."""
    if ops is NUMBA and HAS_GPU:
        pytest.skip("numba runs on the CPU")
    return ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_quantised_to_the_nearest_of_255_steps(dtype):
    matrix = torch.randn(50, 300).mul_(0.02).to(dtype)
    weight = quantize(matrix)
    assert weight.has_row_scales and weight.values.abs().amax(1).eq(127).all()
    error = (dequantize(weight, torch.float32) - matrix.float()).abs()
    assert (error <= weight.scale * 0.5001).all()


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-38, 3e38])
def test_rows_of_nothing_and_of_extremes_stay_finite(value):
    matrix = torch.randn(4, 64)
    matrix[2] = value
    back = dequantize(quantize(matrix), torch.float32)
    torch.testing.assert_close(back[2], matrix[2], rtol=1e-2, atol=1e-37)
    torch.testing.assert_close(back, matrix, rtol=0, atol=0.02)


def test_a_matrix_quantised_in_parts_is_the_matrix_quantised_at_once(monkeypatch):
    matrix = torch.randn(37, 100)
    whole = quantize(matrix)
    monkeypatch.setattr("falcon_mamba_app.ops.reference.weight_8bit.VALUES_AT_ONCE", 500)
    for ours, theirs in zip(quantize(matrix).tensors(), whole.tensors(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("num_outputs", "num_inputs", "num_rows"),
    [
        *((*shape, num_rows) for shape in SLICES for num_rows in (1, 5, 65)),
        *((72, 512, num_rows) for num_rows in (2, 17, 33, 64)),
        *(
            pytest.param(*shape, num_rows, marks=gpu)
            for shape in SHAPES_7B
            for num_rows in (1, 8, 32, 64, 100)
        ),
    ],
)
def test_the_kernel_s_product_is_that_of_the_matrix(num_outputs, num_inputs, num_rows):
    weight, x = make_weight(num_outputs, num_inputs), rows(num_rows, num_inputs, HALF)
    expected = product(x, weight)
    loose = {"atol": 1e-2, "rtol": 1e-2}
    y = TRITON.matmul_step(x, weight, None)
    assert y.dtype == HALF
    torch.testing.assert_close(y.double(), expected, **loose)
    addends = TRITON.matmul_step_addends(x, weight, None)
    torch.testing.assert_close(addends.double().sum(0), expected, **loose)


@pytest.mark.parametrize("group", [16, 32, 128])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_groups_of_inputs_have_scales_of_their_own(num_rows, group):
    weight, x = make_weight(72, 512, group=group), rows(num_rows, 512, HALF)
    y = TRITON.matmul_step_addends(x, weight, None).double().sum(0)
    torch.testing.assert_close(y, product(x, weight), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("ops", ON_FLOATS, ids=lambda ops: ops.name)
@pytest.mark.parametrize("num_rows", [0, 1, 4, 7])
def test_products_in_fp32_use_the_exact_matrix(ops, num_rows, group):
    weight, x = make_weight(48, 256, group=group), rows(num_rows, 256, torch.float32)
    bias = torch.randn(48).to(DEVICE)
    for multiply in (on_device(ops).matmul_step, ops.matmul_prompt):
        for added in (None, bias):
            expected = product(x, weight) + (0 if added is None else added.double())
            y = multiply(x, weight, added)
            assert y.dtype == torch.float32
            # The CPU's step rounds its rows to 16 bits.
            rounds = ops is NUMBA and multiply == on_device(ops).matmul_step
            error = 1e-4 * expected.abs().max().item() if rounds and len(x) else 1e-5
            torch.testing.assert_close(y.double(), expected, atol=error, rtol=1e-5)


@pytest.mark.skipif(HAS_GPU, reason="numba runs on the CPU")
@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_on_the_cpu_is_the_same_alone_and_in_any_batch(dtype, group):
    weight, x = make_weight(48, 256, group=group), rows(9, 256, dtype)
    together = NUMBA.matmul_step(x, weight, None)
    alone = torch.cat([NUMBA.matmul_step(row.unsqueeze(0), weight, None) for row in x])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("ops", ON_FLOATS, ids=lambda ops: ops.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [None, 32])
def test_rows_and_matrix_are_dequantised_bit_for_bit(ops, dtype, group):
    if ops is TRITON and dtype == torch.bfloat16:
        dtype = HALF  # the interpreter rounds bf16 otherwise
    weight, ids = make_weight(60, 320, group=group), torch.tensor([3, 59, 3, 0], device=DEVICE)
    expected = dequantize(weight, dtype)
    assert torch.equal(on_device(ops).dequantize(weight, dtype), expected)
    assert torch.equal(ops.rows_of(weight, ids, dtype), expected[ids])
    assert ops.rows_of(weight, ids[:0], dtype).shape == (0, 320)


@pytest.mark.parametrize("num_rows", [1, 2, 40])
def test_in_proj_and_its_convolution_are_their_reference(num_rows):
    weight, x = make_weight(256, 512), rows(num_rows, 512, HALF)
    conv = ConvWeights(torch.randn(4, 128).to(DEVICE, HALF), torch.randn(128).to(DEVICE, HALF))
    states = torch.randn(num_rows + 1, 3, 128).to(DEVICE, HALF)
    slots = torch.arange(num_rows, 0, -1, device=DEVICE)
    found = []
    for ops in ON_HALVES:
        own = states.clone()
        y = ops.projected_conv_step(x, weight, None, conv, conv_states=own, slots=slots)
        found.append((*y, own))
    torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("num_rows", [1, 2])
def test_the_step_from_x_proj_to_the_gate_is_its_reference(num_rows, group):
    d, r = 40, 32
    weight = make_weight(d, r, group=group)
    found = projected_scans(ON_HALVES, weight, num_rows=num_rows, d=d, r=r, device=DEVICE)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_the_kernel_of_few_rows_needs_a_card_and_2_to_8_or_32_rows_in_bf16(monkeypatch):
    weight, x = make_weight(16_384, 512), rows(32, 512, torch.bfloat16)
    assert few_rows_8bit.applies(x, weight) == HAS_GPU
    monkeypatch.setattr(gluon_parts, "is_available", lambda: True)
    assert few_rows_8bit.applies(x, weight)
    assert few_rows_8bit.applies(x[:2], weight) and few_rows_8bit.applies(x[:8], weight)
    assert not any(few_rows_8bit.applies(x[:n], weight) for n in (0, 1, 9, 16, 31))
    assert not few_rows_8bit.applies(x.float(), weight)
    assert not few_rows_8bit.applies(x, make_weight(16_384, 512, group=32))
    assert not few_rows_8bit.applies(x, make_weight(40, 512))  # no whole tiles


def test_the_storage_is_read_where_it_lies():
    """A second copy would cost what 8 bits save."""
    weight = make_weight(8, 64)
    moved = weight.to(DEVICE)
    assert moved.values.data_ptr() == weight.values.data_ptr()
    assert weight.nbytes == 8 * 64 + 8 * 4
