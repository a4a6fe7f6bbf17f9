"""4-bit storage read back: our torch and our kernels against bitsandbytes' `dequantize_4bit`.

Without a GPU the kernels run in Triton's interpreter, as in `test_triton_kernels.py`; with one the
7B shapes run too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bitsandbytes import functional
from torch import Tensor

from falcon_mamba_app.ops import REFERENCE, ConvWeights
from falcon_mamba_app.ops.cpu import products
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.reference.weight_4bit import Weight4bit, dequantize
from falcon_mamba_app.ops.triton import few_rows_4bit, gluon_parts, linear_4bit
from falcon_mamba_app.ops.triton.ops import TRITON
from tests.support.fused_steps import projected_scans
from tests.support.quantized import FORMS, make_weight

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
# The interpreter multiplies the bits of bf16 as if they were integers.
HALF = torch.bfloat16 if HAS_GPU else torch.float16
gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")]

SHAPES_7B = [(16_384, 4096), (288, 8192), (8192, 256), (4096, 8192)]
# Slices of the model's matrices, all their inputs wide; then sizes that fill no tile.
SLICES = [(8, 4096), (2, 8192), (64, 256), (66, 512), (40, 192), (100, 64)]
SHAPES = [*SLICES, *(pytest.param(*shape, marks=gpu) for shape in SHAPES_7B)]
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


def rows(num_rows: int, num_inputs: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows, as the model hands them over."""
    generator = torch.Generator().manual_seed(num_rows)
    wide = torch.randn(num_rows, num_inputs + 32, generator=generator)
    return wide.to(DEVICE, dtype)[:, :num_inputs]


def library_matrix(weight: Weight4bit, dtype: torch.dtype) -> Tensor:
    """By `bitsandbytes.functional.dequantize_4bit`, in rows of one block."""
    state = functional.QuantState(
        absmax=weight.absmax,
        shape=torch.Size((weight.packed.numel() * 2 // weight.blocksize, weight.blocksize)),
        code=weight.code,
        blocksize=weight.blocksize,
        quant_type=weight.kind,
        dtype=dtype,
    )
    if weight.nested is not None:
        state.nested, state.offset = True, weight.nested.offset
        state.state2 = functional.QuantState(
            absmax=weight.nested.scale, code=weight.nested.code, blocksize=256, dtype=torch.float32
        )
    return functional.dequantize_4bit(weight.packed.view(-1, 1), state).view(weight.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize(("num_outputs", "num_inputs"), SHAPES)
def test_our_torch_dequantises_bit_for_bit(num_outputs, num_inputs, kind, is_double, dtype):
    weight = make_weight(num_outputs, num_inputs, kind, is_double=is_double, device=DEVICE)
    assert torch.equal(dequantize(weight, dtype), library_matrix(weight, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [*SLICES, (1024, 32), (3, 20)])
def test_the_cpu_dequantises_bit_for_bit(num_outputs, num_inputs, kind, is_double, dtype):
    weight = make_weight(num_outputs, num_inputs, kind, is_double=is_double)
    assert torch.equal(NUMBA.dequantize(weight, dtype), dequantize(weight, dtype))


def test_a_large_matrix_is_dequantised_by_several_threads_alike(monkeypatch):
    weight = make_weight(512, 512)
    monkeypatch.setattr(products, "MIN_UNPACKED_PER_THREAD", 65_536)
    matrix = NUMBA.dequantize(weight, torch.bfloat16)
    assert torch.equal(matrix, dequantize(weight, torch.bfloat16))


@pytest.mark.parametrize("num_inputs", [16, 20, 32, 48, 80, 96])
@pytest.mark.parametrize("is_double", [False, True])
def test_rows_that_are_no_whole_blocks_are_dequantised_right(num_inputs, is_double):
    """bitsandbytes' own code for AVX-512 takes the scale of another block there."""
    weight = make_weight(64, num_inputs, is_double=is_double, device=DEVICE)
    matrix = linear_4bit.dequantize(weight, torch.float32)
    torch.testing.assert_close(matrix, dequantize(weight, torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize(("num_outputs", "num_inputs"), SHAPES)
def test_the_kernel_dequantises_as_the_library(num_outputs, num_inputs, kind, is_double, dtype):
    weight = make_weight(num_outputs, num_inputs, kind, is_double=is_double, device=DEVICE)
    matrix = linear_4bit.dequantize(weight, dtype)
    # Double quantisation's product and sum may be rounded once or twice.
    tolerance = {"atol": 1e-6, "rtol": 2**-7} if is_double else {"atol": 0, "rtol": 0}
    torch.testing.assert_close(matrix, library_matrix(weight, dtype), **tolerance)


def product(x: Tensor, weight: Weight4bit, dtype: torch.dtype) -> Tensor:
    """In fp64, of the matrix rounded to `dtype`."""
    return x.double() @ library_matrix(weight, dtype).double().T


@pytest.mark.parametrize("num_rows", [1, 2, 5, 16, 17, 33, 64, 65])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), SHAPES)
def test_the_product_is_that_of_the_dequantised_matrix(num_outputs, num_inputs, num_rows):
    weight = make_weight(num_outputs, num_inputs, compute_dtype=HALF, device=DEVICE)
    x = rows(num_rows, num_inputs, HALF)
    # One row may use the unrounded matrix: compared with that of fp32 it is only nearer.
    expected = product(x, weight, HALF)
    loose = {"atol": 2e-2, "rtol": 1e-2}
    y = TRITON.matmul_4bit_step(x, weight, None)
    torch.testing.assert_close(y.double(), expected, **loose)
    addends = TRITON.matmul_4bit_step_addends(x, weight, None)
    torch.testing.assert_close(addends.double().sum(0), expected, **loose)


@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize("num_rows", [1, 3, 40, 70])
def test_products_in_fp32_lose_nothing_to_half_precision(num_rows, kind, is_double):
    """As checkpoints such as tiiuae/falcon-mamba-7b-4bit ask for."""
    weight = make_weight(64, 256, kind, is_double=is_double, device=DEVICE)
    x = rows(num_rows, 256, HALF)
    addends = TRITON.matmul_4bit_step_addends(x, weight, None)
    exact, rounded = product(x, weight, torch.float32), product(x, weight, HALF)
    error = (addends.double().sum(0) - exact).abs().max()
    if num_rows <= linear_4bit.MAX_ROWS:
        assert error < 0.05 * (rounded - exact).abs().max()
    y = TRITON.matmul_4bit_step(x, weight, None)
    torch.testing.assert_close(y.double(), exact, atol=2e-3, rtol=2**-8)


@pytest.mark.parametrize("num_rows", [1, 4, 70])
def test_a_bias_is_added_and_the_dtype_kept(num_rows):
    weight, bias = make_weight(64, 256, device=DEVICE), torch.randn(64).to(DEVICE, HALF)
    x = rows(num_rows, 256, HALF)
    y = TRITON.matmul_4bit_step(x, weight, bias)
    assert y.dtype == HALF
    expected = product(x, weight, torch.float32) + bias.double()
    torch.testing.assert_close(y.double(), expected, atol=5e-3, rtol=2**-7)
    addends = TRITON.matmul_4bit_step_addends(x, weight, bias)
    torch.testing.assert_close(addends.double().sum(0), expected, atol=5e-3, rtol=2**-7)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("d", "num_rows"),
    [(128, 1), (128, 2), *(pytest.param(8192, n, marks=gpu) for n in (1, 2, 16, 17, 40, 64))],
)
def test_in_proj_and_its_convolution_are_their_reference(d, num_rows, has_bias):
    weight = make_weight(2 * d, 512, compute_dtype=HALF, device=DEVICE)
    x = rows(num_rows, 512, HALF)
    bias = torch.randn(d).to(DEVICE, HALF) if has_bias else None
    conv = ConvWeights(torch.randn(4, d).to(DEVICE, HALF), bias)
    states = torch.randn(num_rows + 1, 3, d).to(DEVICE, HALF)
    slots = torch.arange(num_rows, 0, -1, device=DEVICE)
    found = []
    for ops in (REFERENCE, TRITON):
        own = states.clone()
        y = ops.projected_conv_step(x, weight, None, conv, conv_states=own, slots=slots)
        found.append((*y, own))
    torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("kind", "is_double"), FORMS)
@pytest.mark.parametrize(
    ("num_rows", "d", "r"), [(1, 40, 64), (1, 33, 256), (2, 40, 64), (1, 40, 32)]
)
def test_the_step_from_x_proj_to_the_gate_is_its_reference(num_rows, d, r, kind, is_double):
    weight = make_weight(d, r, kind, is_double=is_double, device=DEVICE)
    found = projected_scans([REFERENCE, TRITON], weight, num_rows=num_rows, d=d, r=r, device=DEVICE)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_the_kernel_of_few_rows_needs_a_card_bf16_and_whole_blocks(monkeypatch):
    weight = make_weight(128, 512, compute_dtype=torch.bfloat16, device=DEVICE)
    x = rows(8, 512, torch.bfloat16)
    assert few_rows_4bit.applies(x, weight) == HAS_GPU
    monkeypatch.setattr(gluon_parts, "is_available", lambda: True)
    assert few_rows_4bit.applies(x, weight)
    assert not few_rows_4bit.applies(x.float(), weight)
    assert few_rows_4bit.applies(rows(32, 512, torch.bfloat16), weight)
    assert not few_rows_4bit.applies(x[:1], weight)
    assert not few_rows_4bit.applies(rows(33, 512, torch.bfloat16), weight)
    assert not few_rows_4bit.applies(x, replace(weight, compute_dtype=torch.float32))
    assert not few_rows_4bit.applies(x, replace(weight, shape=(1024, 64)))
    double = make_weight(128, 512, is_double=True, compute_dtype=torch.bfloat16, device=DEVICE)
    assert not few_rows_4bit.applies(x, double)


@pytest.mark.parametrize("tile_bytes", [4_096, 8_192, 16_384, 32_768, 65_536])
def test_shared_memory_is_what_triton_asks_for_or_what_every_kernel_has(tile_bytes):
    known = few_rows_4bit.num_stages(tile_bytes) * tile_bytes
    assert known > 49_152 or known + few_rows_4bit.TABLE_BYTES <= 49_152
    assert known <= max(2 * tile_bytes, 65_536)


@pytest.mark.parametrize("blocksize", [32, 128, 4096])
def test_blocks_of_other_sizes_are_dequantised_too(blocksize):
    matrix = torch.randn(32, 256)
    packed, state = functional.quantize_4bit(matrix, blocksize=blocksize, quant_type="nf4")
    weight = replace(make_weight(32, 256), packed=packed.flatten(), absmax=state.absmax,
                     blocksize=blocksize).to(DEVICE)  # fmt: skip
    x = rows(3, 256, torch.float32)
    y = TRITON.matmul_4bit_step(x, weight, None)
    expected = x @ functional.dequantize_4bit(packed, state).to(DEVICE).T
    torch.testing.assert_close(y, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ops", [REFERENCE, TRITON], ids=lambda ops: ops.name)
def test_no_rows_or_fp32_rows_are_products_too(ops):
    weight = make_weight(64, 128, device=DEVICE)
    x = rows(7, 128, torch.float32)
    y = ops.matmul_4bit_prompt(x, weight, None)
    torch.testing.assert_close(y.double(), product(x, weight, torch.float32), atol=1e-5, rtol=1e-5)
    assert ops.matmul_4bit_prompt(x[:0], weight, None).shape == (0, 64)


def test_the_storage_is_read_where_it_lies():
    """A second copy would cost what 4 bits save."""
    weight = make_weight(64, 256, device=DEVICE)
    words, absmax, code, *nested = linear_4bit.storage(weight)
    assert words.data_ptr() == weight.packed.data_ptr() and absmax is weight.absmax
    assert code is weight.code and nested == [None, None, None]
