"""Matrices in bitsandbytes' 4 bits on the CPU: multiplied where they lie, unpacked in tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from falcon_mamba_app.ops.cpu import products
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, dequantize
from tests.support.other_processors import assert_prints_equal
from tests.support.quantized import FORMS, make_weight

pytestmark = pytest.mark.usefixtures("poisoned_outputs")

DTYPES = [torch.float32, torch.bfloat16]
# Rounding rows and codes, relative to the largest result; bf16 rounds the result itself.
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 4e-3}


def rows(num_rows: int, num_inputs: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows, as the model hands them over."""
    generator = torch.Generator().manual_seed(num_rows)
    return torch.randn(num_rows, num_inputs + 32, generator=generator).to(dtype)[:, :num_inputs]


def assert_near(result: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    error = (result.double() - exact).abs().max() / exact.abs().max()
    assert error <= TOLERANCE[dtype], error


def forbid_unpacking(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("the matrix was unpacked")

    monkeypatch.setattr(products, "_unpack_4bit_into", refuse)
    monkeypatch.setattr(products.weight_4bit, "dequantize", refuse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize("num_inputs", [64, 320, 512])
def test_a_step_s_product_is_that_of_the_matrix_which_is_not_unpacked(
    num_inputs, kind, is_double, dtype, monkeypatch
):
    weight = make_weight(37, num_inputs, kind, is_double=is_double)
    x, bias = rows(5, num_inputs, dtype), torch.linspace(-1, 1, 37).to(dtype)
    exact = x.double() @ dequantize(weight, torch.float64).T + bias.double()
    forbid_unpacking(monkeypatch)
    together = NUMBA.matmul_4bit_step(x, weight, bias)
    assert_near(together, exact, dtype)
    for first, count in ((0, 1), (0, 2), (1, 4), (4, 1)):
        part = slice(first, first + count)
        assert torch.equal(NUMBA.matmul_4bit_step(x[part], weight, bias), together[part])


@pytest.mark.parametrize("compute_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_whatever_dtype_is_asked_for_a_step_is_no_further_from_the_matrix(compute_dtype):
    weight = make_weight(40, 256, compute_dtype=compute_dtype)
    x = rows(2, 256, torch.float32)
    exact = x.double() @ dequantize(weight, torch.float64).T
    assert_near(NUMBA.matmul_4bit_step(x, weight, None), exact, torch.float32)


@pytest.mark.parametrize("blocksize", [32, 128, 256, 512])
def test_blocks_of_any_size_are_multiplied(blocksize):
    whole = make_weight(24, 512)
    absmax = torch.rand(24 * 512 // blocksize) + 0.5
    weight = replace(whole, blocksize=blocksize, absmax=absmax)
    x = rows(3, 512, torch.float32)
    exact = x.double() @ dequantize(weight, torch.float64).T
    assert_near(NUMBA.matmul_4bit_step(x, weight, None), exact, torch.float32)
    assert_near(NUMBA.matmul_4bit_prompt(x, weight, None), exact, torch.float32)


@pytest.mark.parametrize("num_inputs", [32, 96, 100])
def test_rows_that_are_no_whole_blocks_are_multiplied_too(num_inputs):
    weight, x = make_weight(48, num_inputs), rows(3, num_inputs, torch.float32)
    exact = x.double() @ dequantize(weight, torch.float64).T
    assert_near(NUMBA.matmul_4bit_step(x, weight, None), exact, torch.float32)
    assert_near(NUMBA.matmul_4bit_prompt(x, weight, None), exact, torch.float32)


@pytest.mark.parametrize("is_double", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prompt_is_multiplied_tile_by_tile(dtype, is_double, monkeypatch):
    """300 outputs in tiles of 256, and one token as the same of two."""
    weight = make_weight(300, 512, is_double=is_double, compute_dtype=dtype)
    x, bias = rows(7, 512, dtype), torch.linspace(-1, 1, 300).to(dtype)
    sizes = []
    unpack = products._unpack_4bit_into
    monkeypatch.setattr(products, "VALUES_OF_A_TILE", 256 * 512)
    monkeypatch.setattr(
        products, "_unpack_4bit_into", lambda y, *rest: sizes.append(len(y)) or unpack(y, *rest)
    )
    together = NUMBA.matmul_4bit_prompt(x, weight, bias)
    assert sizes == [256, 44]
    exact = x.double() @ dequantize(weight, dtype).double().T + bias.double()
    assert_near(together, exact, dtype)
    assert torch.equal(NUMBA.matmul_4bit_prompt(x[:1], weight, bias), together[:1])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e-44, 1e30])
def test_what_is_not_finite_is_not_finite_afterwards_and_what_is_stays_so(value):
    weight, x = make_weight(8, 512), rows(2, 512, torch.float32)
    x[0] = value
    result = NUMBA.matmul_4bit_step(x, weight, None)
    assert result[1].isfinite().all()
    assert bool(result[0].isfinite().all()) == (abs(value) < float("inf"))


@pytest.mark.parametrize("code", range(16))
def test_every_code_at_its_largest_leaves_32_bits_alone(code):
    """Every number of the matrix the same, times activations of one magnitude."""
    weight = make_weight(4, 512)
    weight = replace(weight, packed=torch.full_like(weight.packed, code << 4 | code))
    x = torch.full((1, 512), -3.0)
    exact = x.double() @ dequantize(weight, torch.float64).T
    result = NUMBA.matmul_4bit_step(x, weight, None).double()
    least = float(exact.abs().max()) * 1e-3 + 3e-5 * 512 * 3
    torch.testing.assert_close(result, exact, rtol=1e-3, atol=least)


OTHER_PROCESSOR = """
import torch
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, dequantize
from tests.ops.test_cpu_4bit import rows, weight_of_every_byte
weight, x = weight_of_every_byte(), rows(1, 512, torch.float32)
exact = x.double() @ dequantize(weight, torch.float64).T
error = (NUMBA.matmul_4bit_step(x, weight, None).double() - exact).abs().max()
assert error <= 2e-4 * exact.abs().max(), error
print("equal")
"""


def weight_of_every_byte() -> Weight4bit:
    code = torch.linspace(-1, 1, 16) ** 3
    packed = torch.arange(256).to(torch.uint8).repeat(2)
    return Weight4bit(packed, torch.rand(16) + 0.5, code, (2, 512), 64, "nf4", torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["+sse2", "+sse2,+ssse3"])
def test_other_processors_give_the_same_numbers(tmp_path, features):
    """Without the instruction that looks up a byte, and with it."""
    assert_prints_equal(OTHER_PROCESSOR, features, tmp_path)
