"""Matrices in the blocks of a GGUF file: how they are decoded, and their products on the CPU."""

from __future__ import annotations

import gguf
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_8bit import Weight8bit
from falcon_mamba_app.ops.reference.weight_8bit import dequantize as dequantize_8bit
from falcon_mamba_app.ops.reference.weight_ggml import BLOCKS, WeightGgml, dequantize
from tests.support.other_processors import assert_prints_equal

pytestmark = pytest.mark.usefixtures("poisoned_outputs")

PLACES_OF_HALVES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
DTYPES = [torch.float32, torch.bfloat16]
# Rounding the rows to 16 bits, relative to the largest result; bf16 rounds the result itself.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-3}


def random_weight(kind: str, num_outputs: int, num_inputs: int) -> WeightGgml:
    """Any bytes, but for the scales of blocks: these are finite."""
    block, block_bytes = BLOCKS[kind]
    generator = torch.Generator().manual_seed(num_outputs + num_inputs)
    shape = (num_outputs, num_inputs // block)
    data = torch.randint(0, 256, (*shape, block_bytes), dtype=torch.uint8, generator=generator)
    for at in PLACES_OF_HALVES.get(kind, (0,)):
        scales = torch.rand(*shape, 1, generator=generator).mul(0.02).half()
        data[:, :, at : at + 2] = scales.view(torch.uint8)
    return WeightGgml(data.view(num_outputs, -1), kind)


def num_inputs_of(kind: str) -> list[int]:
    """One block, and several; those of 32 also end within 256."""
    return [32, 512, 320] if BLOCKS[kind][0] == 32 else [256, 768]


CASES = [(kind, count) for kind in BLOCKS for count in num_inputs_of(kind)]


def rows(num_rows: int, num_inputs: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows, as the model hands them over."""
    generator = torch.Generator().manual_seed(num_rows)
    return torch.randn(num_rows, num_inputs + 32, generator=generator).to(dtype)[:, :num_inputs]


def assert_near(result: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    error = (result.double() - exact).abs().max() / exact.abs().max()
    assert error <= TOLERANCE[dtype], error


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_numbers_are_those_of_the_format(kind):
    weight = random_weight(kind, 6, num_inputs_of(kind)[1])
    expected = gguf.quants.dequantize(weight.data.numpy(), GGMLQuantizationType[kind])
    assert torch.equal(dequantize(weight, torch.float32), torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "num_inputs"), CASES)
def test_the_kernels_unpack_the_same_numbers(kind, num_inputs, dtype):
    weight = random_weight(kind, 37, num_inputs)
    expected = dequantize(weight, dtype)
    assert torch.equal(NUMBA.dequantize(weight, dtype), expected)
    ids = torch.tensor([3, 0, 36, 3])
    assert torch.equal(NUMBA.rows_of(weight, ids, dtype), expected[ids])
    assert torch.equal(REFERENCE.rows_of(weight, ids, dtype), expected[ids])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "num_inputs"), CASES)
def test_a_product_is_that_of_the_unpacked_matrix(kind, num_inputs, dtype):
    weight, x = random_weight(kind, 37, num_inputs), rows(5, num_inputs, dtype)
    bias = torch.linspace(-1, 1, 37).to(dtype)
    exact = x.double() @ dequantize(weight, torch.float64).T + bias.double()
    assert_near(NUMBA.matmul_step(x, weight, bias), exact, dtype)
    assert_near(NUMBA.matmul_prompt(x, weight, bias), exact, dtype)
    assert_near(REFERENCE.matmul_step(x, weight, bias), exact, dtype)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_row_is_the_same_bits_alone_and_in_any_batch(kind):
    num_inputs = num_inputs_of(kind)[-1]
    weight, x = random_weight(kind, 37, num_inputs), rows(9, num_inputs, torch.float32)
    together = NUMBA.matmul_step(x, weight, None)
    for count in (1, 2, 3, 4, 6):
        assert torch.equal(NUMBA.matmul_step(x[:count], weight, None), together[:count])
    assert torch.equal(NUMBA.matmul_step(x[5:6], weight, None), together[5:6])


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_prompt_is_multiplied_tile_by_tile(kind, monkeypatch):
    """300 outputs in tiles of 256, and one token as the same of two."""
    num_inputs = num_inputs_of(kind)[1]
    weight, x = random_weight(kind, 300, num_inputs), rows(7, num_inputs, torch.float32)
    bias = torch.linspace(-1, 1, 300)
    monkeypatch.setattr("falcon_mamba_app.ops.cpu.products.VALUES_OF_A_TILE", 256 * num_inputs)
    together = NUMBA.matmul_prompt(x, weight, bias)
    exact = x.double() @ dequantize(weight, torch.float64).T + bias.double()
    assert_near(together, exact, torch.float32)
    assert torch.equal(NUMBA.matmul_prompt(x[:1], weight, bias), together[:1])


@pytest.mark.parametrize("kind", BLOCKS)
def test_extreme_weights_and_activations_do_not_overflow(kind):
    """Every whole number of the format at its largest, times activations of one magnitude."""
    num_inputs = num_inputs_of(kind)[1]
    weight = random_weight(kind, 4, num_inputs)
    block_bytes = BLOCKS[kind][1]
    data = weight.data.view(4, -1, block_bytes).clone()
    halves = PLACES_OF_HALVES.get(kind, (0,))
    is_scale = torch.tensor([any(at <= i < at + 2 for at in halves) for i in range(block_bytes)])
    for row, byte in enumerate((0x00, 0x80, 0x7F, 0xFF)):
        data[row, :, ~is_scale] = byte
    weight = WeightGgml(data.view(4, -1), kind)
    signs = torch.where(torch.arange(num_inputs) % 3 == 0, -1.0, 1.0)
    x = torch.stack([torch.full((num_inputs,), 1e4), torch.full((num_inputs,), -3.0), signs])
    exact = x.double() @ dequantize(weight, torch.float64).T
    result = NUMBA.matmul_step(x, weight, None).double()
    torch.testing.assert_close(result, exact, rtol=1e-4, atol=float(exact[2].abs().max()) * 1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_finite_afterwards(value):
    weight, x = random_weight("Q8_0", 8, 512), rows(2, 512, torch.float32)
    x[0, 300] = value
    result = NUMBA.matmul_step(x, weight, None)
    assert not result[0].isfinite().any() and result[1].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-33])
def test_rows_of_next_to_nothing_give_next_to_nothing(value):
    weight, x = random_weight("Q4_K", 8, 512), torch.full((1, 512), value)
    assert NUMBA.matmul_step(x, weight, None).abs().max() <= 1e-25


@pytest.mark.parametrize(
    ("num_inputs", "num_groups"), [(32, 1), (512, 1), (96, 1), (512, 2), (512, 16), (96, 3)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_in_8_bits_is_multiplied_by_whole_numbers(num_inputs, num_groups, dtype):
    generator = torch.Generator().manual_seed(num_inputs)
    values = torch.randint(-127, 128, (37, num_inputs), dtype=torch.int8, generator=generator)
    weight = Weight8bit(values, torch.rand(37, num_groups, generator=generator))
    x = rows(5, num_inputs, dtype)
    exact = x.double() @ dequantize_8bit(weight, torch.float64).T
    together = NUMBA.matmul_step(x, weight, None)
    assert_near(together, exact, dtype)
    assert torch.equal(NUMBA.matmul_step(x[:1], weight, None), together[:1])


OTHER_PROCESSOR = """
import torch
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_ggml import dequantize
from tests.ops.test_linear_ggml import random_weight, rows
for kind in ("Q8_0", "Q4_K"):
    weight, x = random_weight(kind, 37, 256), rows(1, 256, torch.float32)
    weight.data[0, 0], weight.data[0, 1] = 0x55, 0x80  # a scale below 2**-14, and negative
    exact = x.double() @ dequantize(weight, torch.float64).T
    error = (NUMBA.matmul_step(x, weight, None).double() - exact).abs().max()
    assert error <= 1e-4 * exact.abs().max(), (kind, error)
    assert torch.equal(NUMBA.dequantize(weight, torch.float32), dequantize(weight, torch.float32))
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("features", ["+sse2"])
def test_other_processors_give_the_same_numbers(tmp_path, features):
    """What every x86 has: it lacks the instruction that widens a float16, too."""
    assert_prints_equal(OTHER_PROCESSOR, features, tmp_path)
