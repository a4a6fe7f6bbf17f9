"""Every compiled CPU kernel against its twin in plain torch, at shapes that are small and awkward.

Outputs are poisoned: what a kernel forgets to write is NaN.
"""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import REFERENCE, ConvWeights, ScanWeights
from falcon_mamba_app.ops.cpu import compiled, dense_kernels, kernels, sampling
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.cpu.warm_up import warm_up
from falcon_mamba_app.ops.select import select_ops
from falcon_mamba_app.settings import load_settings

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
BOTH_DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)
LENGTHS = [[1], [2], [3], [4], [5], [7], [33], [1, 1, 1], [5, 1, 7, 2], [17, 3]]
SIZES = [(20, 16, 4), (16, 8, 2), (33, 16, 3), (600, 8, 4)]  # d, n, k; 600 takes three blocks
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


@dataclass(frozen=True)
class Case:
    """Inputs as the model hands them over: x, z and dt, B, C are column slices."""

    x: Tensor
    z: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    scan_weights: ScanWeights
    conv_weights: ConvWeights
    conv_states: Tensor
    ssm_states: Tensor
    slots: Tensor
    query_starts: Tensor

    def on_states_of_its_own(self) -> Case:
        return replace(
            self, conv_states=self.conv_states.clone(), ssm_states=self.ssm_states.clone()
        )

    def conv(self, ops) -> Tensor:
        if len(self.slots) == len(self.x):
            return ops.conv_step(self.x, self.conv_weights, **self._conv_rows())
        return self.conv_prefill(ops)

    def conv_prefill(self, ops) -> Tensor:
        rows = self._conv_rows()
        return ops.conv_prefill(self.x, self.conv_weights, **rows, query_starts=self.query_starts)

    def _conv_rows(self) -> dict[str, Tensor]:
        return {"conv_states": self.conv_states, "slots": self.slots}

    def scan(self, ops) -> Tensor:
        if len(self.slots) == len(self.x):
            return ops.scan_step(self.x, self.scan_weights, **self._scan_rows())
        return self.scan_prefill(ops)

    def scan_prefill(self, ops) -> Tensor:
        rows = self._scan_rows()
        return ops.scan_prefill(self.x, self.scan_weights, **rows, query_starts=self.query_starts)

    def _scan_rows(self) -> dict[str, Tensor]:
        names = "dt", "B", "C", "z", "ssm_states", "slots"
        return {name: getattr(self, name) for name in names}


def make_case(lengths, *, slots=None, size=(20, 16, 4), dtype=torch.float32, seed=0) -> Case:
    d, n, k = size
    t, g = sum(lengths), torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    x, z = random(t, 2 * d).to(dtype).chunk(2, -1)
    dt, B, C = random(t, d + 2 * n).to(dtype).split([d, n, n], -1)
    return Case(
        x=x,
        z=z,
        dt=dt,
        B=B,
        C=C,
        scan_weights=ScanWeights(
            A=-torch.rand(n, d, generator=g) * 16, D=random(d), dt_bias=random(d) - 3
        ),
        conv_weights=ConvWeights(random(k, d).to(dtype), random(d).to(dtype)),
        conv_states=random(7, k - 1, d).to(dtype),
        ssm_states=random(7, n, d),
        slots=torch.tensor(slots or [5, 2, 6, 1][: len(lengths)]),
        query_starts=torch.tensor([0, *accumulate(lengths)]),
    )


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """fp32 to 1e-5 of the tensor's scale; bf16 keeps 8 bits, so two roundings part by 2⁻⁷."""
    share = 1e-5 if expected.dtype == torch.float32 else 2**-7
    scale = max(1.0, expected.float().abs().max().item())
    assert_close(actual, expected, atol=share * scale, rtol=0.0)


@BOTH_DTYPES
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("operation", ["conv", "conv_prefill", "scan", "scan_prefill"])
def test_outputs_and_states_equal_those_of_plain_torch(operation, lengths, size, dtype):
    theirs = make_case(lengths, size=size, dtype=dtype)
    mine = theirs.on_states_of_its_own()
    expected = getattr(theirs, operation)(REFERENCE)
    assert_near(getattr(mine, operation)(NUMBA), expected)
    assert_near(mine.conv_states, theirs.conv_states)
    assert_near(mine.ssm_states, theirs.ssm_states)


@pytest.mark.parametrize("operation", ["conv", "conv_prefill", "scan", "scan_prefill"])
def test_slots_that_are_not_named_keep_their_state_bit_for_bit(operation):
    before = make_case([1, 1], slots=[4, 2])
    after = before.on_states_of_its_own()
    getattr(after, operation)(NUMBA)
    others = [0, 1, 3, 5, 6]
    assert torch.equal(after.conv_states[others], before.conv_states[others])
    assert torch.equal(after.ssm_states[others], before.ssm_states[others])


@pytest.mark.parametrize("operation", ["conv", "scan"])
def test_padding_rows_may_share_the_scratch_slot(operation):
    padded = make_case([1, 1, 1, 1], slots=[0, 3, 0, 0])
    alone = make_case([1, 1, 1, 1], slots=[4, 3, 1, 2])
    assert torch.equal(getattr(padded, operation)(NUMBA)[1], getattr(alone, operation)(NUMBA)[1])
    assert torch.equal(padded.ssm_states[3], alone.ssm_states[3])


@BOTH_DTYPES
@pytest.mark.parametrize("operation", ["conv", "scan"])
def test_a_row_of_a_step_equals_the_row_alone_bit_for_bit(operation, dtype):
    together = make_case([1, 1, 1], slots=[4, 2, 6], dtype=dtype)
    alone = together.on_states_of_its_own()
    outputs = getattr(together, operation)(NUMBA)
    for row in range(3):
        parts = {name: getattr(alone, name)[row : row + 1] for name in ("x", "z", "dt", "B", "C")}
        single = replace(alone, **parts, slots=alone.slots[row : row + 1])
        assert torch.equal(getattr(single, operation)(NUMBA), outputs[row : row + 1])
    assert torch.equal(alone.ssm_states, together.ssm_states)
    assert torch.equal(alone.conv_states, together.conv_states)


@pytest.mark.parametrize("operation", ["conv_prefill", "scan_prefill"])
def test_a_prompt_on_three_threads_equals_the_prompt_on_one_bit_for_bit(operation, monkeypatch):
    size = (4 * kernels.BLOCK + 20, 16, 4)
    one, three = make_case([100], size=size), make_case([100], size=size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = getattr(one, operation)(NUMBA)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(getattr(three, operation)(NUMBA), expected)
    assert torch.equal(three.ssm_states, one.ssm_states)
    assert torch.equal(three.conv_states, one.conv_states)


def test_the_convolution_needs_no_bias():
    theirs = make_case([5, 2])
    theirs = replace(theirs, conv_weights=replace(theirs.conv_weights, bias=None))
    mine = theirs.on_states_of_its_own()
    assert_near(mine.conv(NUMBA), theirs.conv(REFERENCE))


@pytest.mark.parametrize("operation", ["conv", "scan"])
def test_what_is_not_a_number_stays_with_its_channel(operation):
    case = make_case([2])
    case.x[1, 3] = float("nan")
    is_nan = getattr(case, operation)(NUMBA).isnan()
    assert is_nan[1, 3]
    assert is_nan.sum() == 1


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight", [None, torch.float32, torch.bfloat16])
@BOTH_DTYPES
def test_rms_norm_equals_that_of_plain_torch(dtype, weight, out_dtype):
    x = (torch.randn(5, 70) * 3).to(dtype)[:, 7:]
    weight = None if weight is None else torch.randn(63).to(weight)
    assert_near(
        NUMBA.rms_norm(x, weight, 1e-5, out_dtype), REFERENCE.rms_norm(x, weight, 1e-5, out_dtype)
    )


@BOTH_DTYPES
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 8, 9, 40])
def test_linear_equals_that_of_torch(num_rows, has_bias, dtype):
    x = torch.randn(num_rows, 90).to(dtype)[:, 3:]
    weight = torch.randn(37, 87).to(dtype)
    bias = torch.randn(37).to(dtype) if has_bias else None
    expected = F.linear(x, weight, bias)
    assert_near(NUMBA.matmul_prompt(x, weight, bias), expected)
    assert_near(NUMBA.matmul_step(x, weight, bias), expected)


@BOTH_DTYPES
def test_a_row_of_a_step_is_the_same_bit_for_bit_alone_and_in_any_batch(dtype):
    x, weight = torch.randn(11, 87).to(dtype), torch.randn(37, 87).to(dtype)
    together = NUMBA.matmul_step(x, weight, None)
    for low in range(11):
        for high in range(low + 1, 12):
            assert torch.equal(NUMBA.matmul_step(x[low:high], weight, None), together[low:high])


@BOTH_DTYPES
@pytest.mark.parametrize("shape", [(2048, 512), (1024, 32)])
def test_a_row_of_a_prompt_is_the_same_bit_for_bit_whoever_shares_its_chunk(shape, dtype):
    """torch's own bf16 product of an odd number of rows rounded some otherwise, on some CPUs; a
    seeded reply then depended on who else was being read.
    """
    weight, x = torch.randn(shape).to(dtype), torch.randn(70, shape[1]).to(dtype)
    together = NUMBA.matmul_prompt(x, weight, None)
    for low, high in [(0, 1), (5, 6), (0, 3), (5, 8), (5, 22), (7, 34), (0, 57), (2, 65)]:
        assert torch.equal(NUMBA.matmul_prompt(x[low:high], weight, None), together[low:high])


def test_a_large_matrix_on_three_threads_equals_it_on_one_bit_for_bit(monkeypatch):
    x, weight = torch.randn(2, 520), torch.randn(6 * kernels.BLOCK + 5, 520)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = NUMBA.matmul_step(x, weight, None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(NUMBA.matmul_step(x, weight, None), expected)


@numba.njit
def _exp2_of_all(x, y):
    for i in range(x.size):
        y[i] = kernels.exp2(x[i])


def test_powers_of_two_err_by_two_units_in_the_last_place_at_most():
    x = np.linspace(-126, 127.4, 200_001, dtype=np.float32)
    y = np.empty_like(x)
    _exp2_of_all(x, y)
    assert np.abs(y / np.exp2(x.astype(np.float64)) - 1).max() <= 2 * 2.0**-23


def test_powers_of_two_outside_the_range_are_zero_infinite_or_not_a_number():
    x = np.array([-np.inf, -1e30, -126.1, 127.6, 1e30, np.inf, np.nan], np.float32)
    y = np.empty_like(x)
    _exp2_of_all(x, y)
    assert y[:3].tolist() == [0.0, 0.0, 0.0]
    assert np.isposinf(y[3:6]).all()
    assert np.isnan(y[6])


@numba.njit
def _store_all(x, y):
    for i in range(x.size):
        y[i] = kernels.store(x[i], kernels.BFLOAT16)


def test_results_are_rounded_to_bfloat16_as_torch_rounds():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    ties = [1 + 2**-8, 1 + 3 * 2**-8]
    x[:6] = torch.tensor([float("inf"), float("-inf"), float("nan"), 3.4e38, *ties])
    x[6:7] = torch.tensor([-1], dtype=torch.int32).view(torch.float32)  # NaN with every bit set
    y = torch.zeros(10_000, dtype=torch.int16)
    _store_all(x.numpy(), y.numpy().view(np.uint16))
    assert_close(y.view(torch.bfloat16), x.bfloat16(), atol=0, rtol=0, equal_nan=True)


def test_kernels_are_compiled_where_no_folder_can_keep_them(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert compiled.first_writable([file / "folder"]) is None
    assert compiled.first_writable([file / "folder", tmp_path / "new"]) == tmp_path / "new"
    monkeypatch.setattr(compiled, "CACHE_FOLDER", None)
    assert compiled.compiled(kernels.OPTIONS)(lambda x: x + 1)(1) == 2


def test_no_kernel_is_found_on_disk_once_any_file_of_theirs_has_changed(tmp_path):
    """A kernel holds code of other files, of which numba's cache knows nothing."""
    sources = [shutil.copytree(folder, tmp_path / folder.name) for folder in compiled.SOURCES]
    hashes = {compiled.hash_of(sources)}
    assert hashes == {compiled.hash_of(compiled.SOURCES)}
    names = ("cpu/kernels.py", "cpu/sampling.py", "cpu/compiled.py", "reference/sampling.py")
    for name in names:
        with (tmp_path / name).open("a") as file:
            file.write("# changed")
        hashes.add(compiled.hash_of(sources))
    assert len(hashes) == 1 + len(names)
    for kernel in (kernels.exp2, kernels.scan, sampling._sample):
        folder = Path(kernel.stats.cache_path)
        assert folder.name == f"kernels-{compiled.hash_of(compiled.SOURCES)}"
    assert str(compiled.CACHE_FOLDER) != numba.config.CACHE_DIR  # other users of numba keep theirs


def test_the_cpu_gets_these_kernels_unless_told_otherwise():
    assert select_ops(CPU, "auto") is NUMBA
    assert select_ops(CPU, "numba") is NUMBA
    assert select_ops(CPU, "reference") is REFERENCE


def test_without_the_package_the_cpu_runs_plain_torch_and_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "falcon_mamba_app.ops.cpu.ops", None)
    with caplog.at_level(logging.WARNING):
        assert select_ops(CPU, "auto") is REFERENCE
    assert "pip install numba" in caplog.text
    with pytest.raises(SettingsError, match="needs the package numba"):
        select_ops(CPU, "numba")


@pytest.mark.parametrize(("device", "preference"), [("cpu", "triton"), ("cuda", "numba")])
def test_kernels_of_another_device_are_refused(device, preference):
    with pytest.raises(SettingsError, match=f"{preference} does not run on {device}"):
        select_ops(torch.device(device), preference)


def test_settings_refuse_these_kernels_on_a_gpu():
    with pytest.raises(SettingsError, match="--kernels numba runs on the CPU"):
        load_settings(["--kernels", "numba", "--device", "cuda"], {})


def test_warming_up_again_compiles_nothing():
    warm_up()
    compiled_before = _num_compiled()
    warm_up()
    assert _num_compiled() == compiled_before


def _num_compiled() -> list[int]:
    some = (dense_kernels.multiply, kernels.conv, kernels.scan)
    return [len(kernel.signatures) for kernel in some]
