"""Every Triton kernel against its twin in plain torch, at shapes that are small and awkward.

Without a GPU the kernels run in Triton's interpreter, which `conftest.py` switches on; with one
they are compiled, and the 7B shapes run too. Outputs are poisoned: what a kernel forgets to write
is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops import REFERENCE, ConvWeights, ScanWeights
from falcon_mamba_app.ops.triton.ops import TRITON

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
EXACT = {"atol": 1e-5, "rtol": 1e-5}
# Over 2048 steps the GPU's exponentials, good to 2⁻²², add up in states of a size near 1 to 10.
LONG = {"atol": 1e-4, "rtol": 1e-4}
# The interpreter multiplies the bits of bf16 as if they were integers.
HALF = torch.bfloat16 if HAS_GPU else torch.float16
ROUNDED = {"atol": 1e-2, "rtol": 1e-2}  # bf16 keeps 8 bits: two roundings may part by 2⁻⁷

gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")]
LENGTHS = [[1], [2], [3], [4], [5], [7], [33], [1, 1, 1], [5, 1, 7, 2], [17, 3]]
pytestmark = pytest.mark.usefixtures("poisoned_outputs")


@dataclass(frozen=True)
class Case:
    """Inputs of every operation, as the model hands them over: x, z, dt, B, C are column slices."""

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

    def with_states_of_its_own(self) -> Case:
        return replace(
            self, conv_states=self.conv_states.clone(), ssm_states=self.ssm_states.clone()
        )

    def without_conv_bias(self) -> Case:
        return replace(self, conv_weights=replace(self.conv_weights, bias=None))

    def conv_rows(self) -> dict[str, Tensor]:
        return {"conv_states": self.conv_states, "slots": self.slots}

    def scan_rows(self) -> dict[str, Tensor]:
        names = "dt", "B", "C", "z", "ssm_states", "slots"
        return {name: getattr(self, name) for name in names}

    def tokens(self, start: int, end: int) -> Case:
        """A chunk of a case of one sequence, on the same states."""
        part = {name: getattr(self, name)[start:end] for name in ("x", "z", "dt", "B", "C")}
        query_starts = torch.tensor([0, end - start], device=self.x.device)
        return replace(self, **part, query_starts=query_starts)


def make_case(lengths, *, slots=None, d=20, n=16, k=4, dtype=torch.float32, seed=0) -> Case:
    """States that remember: A from −1 to −n and Δ from 0.001 to 0.1, as Mamba is initialised."""
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=DEVICE)

    t, q = sum(lengths), len(lengths)
    in_proj, x_proj = normal(t, 2 * d).to(dtype), normal(t, d + 2 * n).to(dtype)
    delta = torch.logspace(-3, -1, d, device=DEVICE)
    return Case(
        x=in_proj[:, :d],
        z=in_proj[:, d:],
        dt=x_proj[:, :d],
        B=x_proj[:, d : d + n],
        C=x_proj[:, d + n :],
        scan_weights=ScanWeights(
            A=-torch.arange(1.0, n + 1, device=DEVICE)[:, None].repeat(1, d),
            D=normal(d),
            dt_bias=delta + torch.log(-torch.expm1(-delta)),
        ),
        conv_weights=ConvWeights(normal(k, d).to(dtype), normal(d).to(dtype)),
        conv_states=normal(q + 3, k - 1, d).to(dtype),
        ssm_states=normal(q + 3, n, d),
        # Out of order, and neither the first nor the last of the rows.
        slots=torch.tensor(slots or range(q + 1, 1, -1), device=DEVICE),
        query_starts=torch.tensor([0, *accumulate(lengths)], device=DEVICE),
    )


def assert_twins_agree(case: Case, run, tolerance=EXACT, state_tolerance=EXACT) -> None:
    """Run an operation of both on equal states; compare outputs, states and untouched slots."""
    ours, theirs = case.with_states_of_its_own(), case.with_states_of_its_own()
    y = run(TRITON, ours)
    torch.testing.assert_close(y, run(REFERENCE, theirs), **tolerance)
    used = torch.unique(case.slots)
    used = used[used > 0]  # nobody reads the scratch slot
    torch.testing.assert_close(ours.conv_states[used], theirs.conv_states[used], **state_tolerance)
    torch.testing.assert_close(ours.ssm_states[used], theirs.ssm_states[used], **state_tolerance)
    others = [s for s in range(len(case.ssm_states)) if s not in case.slots.tolist()]
    assert torch.equal(ours.conv_states[others], case.conv_states[others])
    assert torch.equal(ours.ssm_states[others], case.ssm_states[others])


def conv_prefill(ops, case):
    rows = case.conv_rows()
    return ops.conv_prefill(case.x, case.conv_weights, **rows, query_starts=case.query_starts)


def conv_step(ops, case):
    return ops.conv_step(case.x, case.conv_weights, **case.conv_rows())


def scan_prefill(ops, case):
    rows = case.scan_rows()
    return ops.scan_prefill(case.x, case.scan_weights, **rows, query_starts=case.query_starts)


def scan_step(ops, case):
    return ops.scan_step(case.x, case.scan_weights, **case.scan_rows())


@pytest.mark.parametrize("prefill", [conv_prefill, scan_prefill])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_prefill_kernel_is_its_reference(prefill, lengths):
    assert_twins_agree(make_case(lengths), prefill)


@pytest.mark.parametrize("prefill", [conv_prefill, scan_prefill])
def test_sequences_without_tokens_and_tokens_without_a_sequence_disturb_nobody(prefill):
    """A captured pass is padded with both."""
    padded = make_case([5, 0, 3, 0, 0, 4], slots=[4, 2, 1, 0, 0, 0])
    ends = torch.tensor([0, 5, 5, 8, 8, 8, 8], device=DEVICE)
    assert_twins_agree(replace(padded, query_starts=ends), lambda *of: prefill(*of)[:8])
    alone = replace(padded.tokens(5, 8), slots=padded.slots[2:3])
    y = prefill(TRITON, replace(padded, query_starts=ends).with_states_of_its_own())
    torch.testing.assert_close(y[5:8], prefill(REFERENCE, alone), **EXACT)


@pytest.mark.parametrize("step", [conv_step, scan_step])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_step_kernel_is_its_reference(step, rows):
    assert_twins_agree(make_case([1] * rows), step)


@pytest.mark.parametrize("run", [conv_prefill, scan_prefill, conv_step, scan_step])
def test_bf16_inputs_are_rounded_only_once(run):
    lengths = [5, 1, 7] if run in (conv_prefill, scan_prefill) else [1, 1, 1]
    assert_twins_agree(make_case(lengths, dtype=torch.bfloat16), run, ROUNDED)


@pytest.mark.parametrize("n", [1, 4, 6, 16, 64])
def test_any_number_of_states_per_channel(n):
    assert_twins_agree(make_case([5], n=n, d=7), scan_prefill)
    assert_twins_agree(make_case([1, 1], n=n, d=7), scan_step)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_any_width_of_convolution_with_and_without_bias(k, has_bias):
    prompt, rows = make_case([1, 2, 5], k=k), make_case([1, 1], k=k)
    if not has_bias:
        prompt, rows = prompt.without_conv_bias(), rows.without_conv_bias()
    assert_twins_agree(prompt, conv_prefill)
    assert_twins_agree(rows, conv_step)


@pytest.mark.parametrize("step", [conv_step, scan_step])
def test_padding_rows_share_the_scratch_slot_and_disturb_nobody(step):
    case = make_case([1] * 5, slots=[0, 3, 0, 1, 0])
    alone = make_case([1] * 5, slots=[5, 3, 6, 1, 7])
    real = [1, 3]
    y = step(TRITON, case.with_states_of_its_own())
    expected = step(REFERENCE, alone.with_states_of_its_own())
    torch.testing.assert_close(y[real], expected[real], **EXACT)


def test_a_slot_used_again_continues_where_it_was():
    case = make_case([9])
    ours, theirs = case.with_states_of_its_own(), case.with_states_of_its_own()
    for start, end in [(0, 4), (4, 5), (5, 9)]:
        for run in (conv_prefill, scan_prefill):
            y = run(TRITON, ours.tokens(start, end))
            torch.testing.assert_close(y, run(REFERENCE, theirs.tokens(start, end)), **EXACT)
    torch.testing.assert_close(ours.ssm_states, theirs.ssm_states, **EXACT)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
@pytest.mark.parametrize("prefill", [conv_prefill, scan_prefill])
def test_chunked_prefill_equals_whole_prefill(prefill, chunk):
    case = make_case([21])
    whole, chunked = case.with_states_of_its_own(), case.with_states_of_its_own()
    y = prefill(TRITON, whole)
    bounds = pairwise([*range(0, 21, chunk), 21])
    parts = [prefill(TRITON, chunked.tokens(start, end)) for start, end in bounds]
    torch.testing.assert_close(torch.cat(parts), y, **EXACT)
    torch.testing.assert_close(chunked.ssm_states, whole.ssm_states, **EXACT)
    assert torch.equal(chunked.conv_states, whole.conv_states)


@pytest.mark.parametrize("prefill,step", [(conv_prefill, conv_step), (scan_prefill, scan_step)])
def test_a_step_equals_a_prefill_of_one_token(prefill, step):
    case = make_case([1, 1, 1])
    stepped, prefilled = case.with_states_of_its_own(), case.with_states_of_its_own()
    torch.testing.assert_close(step(TRITON, stepped), prefill(TRITON, prefilled), **EXACT)
    torch.testing.assert_close(stepped.ssm_states, prefilled.ssm_states, **EXACT)
    assert torch.equal(stepped.conv_states, prefilled.conv_states)


@pytest.mark.parametrize("prefill", [conv_prefill, scan_prefill])
def test_dropping_the_state_changes_the_output(prefill):
    """Otherwise a kernel that ignores the state would pass the tests above."""
    case = make_case([33])
    cold = replace(
        case,
        conv_states=torch.zeros_like(case.conv_states),
        ssm_states=torch.zeros_like(case.ssm_states),
    )
    warm_y = prefill(TRITON, case.with_states_of_its_own())
    assert not torch.allclose(warm_y, prefill(TRITON, cold), atol=1e-2)


@pytest.mark.parametrize("size", [-100.0, -10.0, 0.0, 19.9, 20.1, 60.0])
def test_the_time_step_is_softplus_from_end_to_end(size):
    case = make_case([1, 1])
    assert_twins_agree(replace(case, dt=torch.full_like(case.x, size)), scan_step)


@pytest.mark.parametrize("m", [1, 16, 20, 256, 600])
@pytest.mark.parametrize("has_weight", [True, False])
def test_the_norm_kernel_is_its_reference_on_strided_rows(m, has_weight):
    x = make_case([37], d=m).x
    weight = make_case([1], d=m).scan_weights.D if has_weight else None
    assert x.stride(0) == 2 * m
    y = TRITON.rms_norm(x, weight, 1e-5, torch.float32)
    torch.testing.assert_close(y, REFERENCE.rms_norm(x, weight, 1e-5, torch.float32), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_norm_kernel_computes_in_fp32_and_rounds_once(dtype):
    x = 100 * make_case([3], dtype=dtype).x  # 100² is past what fp16 can square
    y = TRITON.rms_norm(x, None, 1e-5, torch.float32)
    torch.testing.assert_close(y, REFERENCE.rms_norm(x, None, 1e-5, torch.float32), **EXACT)
    y = TRITON.rms_norm(x.float(), None, 1e-5, dtype)
    torch.testing.assert_close(y, REFERENCE.rms_norm(x.float(), None, 1e-5, dtype), **ROUNDED)


@pytest.mark.parametrize("outputs,inputs", [(8, 256), (16, 768), (24, 1024), (1024, 3072)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_row_times_a_matrix_is_the_library_s_product(outputs, inputs, dtype):
    assert_products_agree(outputs, inputs, dtype)


@pytest.mark.parametrize("rows", [2, 5, 17])
@pytest.mark.parametrize("outputs,inputs", [(8, 256), (72, 512), (1032, 1024), (16384, 256)])
def test_a_few_rows_times_a_matrix_is_the_library_s_product(rows, outputs, inputs):
    assert_products_agree(outputs, inputs, HALF, rows=rows)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("outputs,inputs", [(40, 8192), (1032, 1536)])
def test_the_addends_of_a_product_add_up_to_it(rows, outputs, inputs):
    x, weight = random_product(outputs, inputs, HALF, rows=rows)
    addends = TRITON.matmul_step_addends(x, weight, None)
    assert len(addends) == 1 if rows == 1 else len(addends) > 1
    truth = F.linear(x.double(), weight.double())
    torch.testing.assert_close(addends.sum(0).double(), truth, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows,outputs,inputs", [(2, 8, 256), (1, 7, 256), (1, 8, 100)])
def test_other_products_are_left_to_the_library(rows, outputs, inputs):
    x = torch.randn(rows, inputs, device=DEVICE)
    weight = torch.randn(outputs, inputs, device=DEVICE)
    bias = torch.randn(outputs, device=DEVICE)
    assert torch.equal(TRITON.matmul_prompt(x, weight, None), F.linear(x, weight))
    assert torch.equal(TRITON.matmul_prompt(x[:1], weight, bias), F.linear(x[:1], weight, bias))
    addends = TRITON.matmul_step_addends(x, weight, bias)
    assert torch.equal(addends, F.linear(x, weight, bias).unsqueeze(0))


def assert_products_agree(outputs, inputs, dtype, *, rows=1):
    x, weight = random_product(outputs, inputs, dtype, rows=rows)
    tolerance = EXACT if dtype == torch.float32 else ROUNDED
    truth = F.linear(x.double(), weight.double()).to(dtype)
    torch.testing.assert_close(TRITON.matmul_prompt(x, weight, None), truth, **tolerance)


def random_product(outputs, inputs, dtype, *, rows):
    """x (rows, inputs), a slice of columns, and weight (outputs, inputs)."""
    x = torch.randn(rows, 2 * inputs, device=DEVICE).to(dtype)[:, :inputs]
    return x, (torch.randn(outputs, inputs, device=DEVICE) / inputs**0.5).to(dtype)


@pytest.mark.parametrize("num_addends", [1, 3])
@pytest.mark.parametrize("m", [16, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_norm_after_a_sum_is_its_reference(num_addends, m, dtype):
    hidden = torch.randn(5, m, device=DEVICE).to(dtype)
    addends, weight = (
        torch.randn(num_addends, 5, m, device=DEVICE),
        make_case([1], d=m).scan_weights.D,
    )
    inputs = hidden, addends, weight, 1e-5, dtype
    ours, theirs = TRITON.add_rms_norm(*inputs), REFERENCE.add_rms_norm(*inputs)
    # In bf16 the norm is of a sum that was rounded, and is rounded again: up to 2⁻⁶ apart.
    tolerance = EXACT if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("num_addends", [1, 16])
@pytest.mark.parametrize("sizes", [[20, 16, 16], [1, 3, 2], [256, 16, 16]], ids=str)
def test_the_norm_of_three_groups_is_its_reference(num_addends, sizes):
    addends = torch.randn(num_addends, 37, sum(sizes), device=DEVICE)
    inputs = addends, sizes, 1e-6, torch.float32
    ours, theirs = TRITON.split_rms_norm(*inputs), REFERENCE.split_rms_norm(*inputs)
    torch.testing.assert_close(ours, theirs, **EXACT)


def projected_step(ops, case, dt_weight, addends):
    """One kernel for one row, three for more; `addends` stand for what x_proj gives."""
    return ops.projected_scan_step(
        case.x,
        case.scan_weights,
        addends=addends,
        sizes=[dt_weight.shape[1], *2 * [len(case.scan_weights.A)]],
        eps=1e-6,
        dt_weight=dt_weight,
        z=case.z,
        ssm_states=case.ssm_states,
        slots=case.slots,
    )


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("d,n,r", [(20, 16, 4), (7, 6, 8), (33, 16, 256)])
def test_the_step_from_x_proj_to_the_gate_is_its_reference(rows, d, n, r):
    case = make_case([1] * rows, d=d, n=n)
    weight = torch.randn(d, r, device=DEVICE) / r**0.5
    addends = torch.randn(1, rows, r + 2 * n, device=DEVICE)
    assert_twins_agree(case, lambda ops, c: projected_step(ops, c, weight, addends))


@pytest.mark.parametrize("rank", [6, 8])
def test_the_step_rounds_where_its_parts_would(rank):
    case = make_case([1], d=40, dtype=HALF)
    weight = (torch.randn(40, rank, device=DEVICE) / rank**0.5).to(HALF)
    addends = torch.randn(1, 1, rank + 32, device=DEVICE)
    run = lambda ops, c: projected_step(ops, c, weight, addends)  # noqa: E731
    assert_twins_agree(case, run, ROUNDED, {"atol": 1e-3, "rtol": 1e-2})


def projected_conv(case, num_inputs, *, has_bias=False):
    """in_proj, the convolution of its first half, and its second half as it is."""
    x, weight = random_product(2 * case.x.shape[1], num_inputs, HALF, rows=len(case.slots))
    bias = torch.randn(len(weight), device=DEVICE).to(HALF) if has_bias else None

    def run(ops, case):
        rows = case.conv_rows()
        return torch.cat(ops.projected_conv_step(x, weight, bias, case.conv_weights, **rows), 1)

    return run


@pytest.mark.parametrize("rows", [1, 2, 33, 64, 65])
@pytest.mark.parametrize("d,inputs,k", [(128, 256, 4), (256, 512, 3), (128, 768, 2), (136, 256, 4)])
def test_the_convolution_behind_in_proj_is_its_reference(rows, d, inputs, k):
    case = make_case([1] * rows, d=d, k=k, dtype=HALF)
    assert_twins_agree(case, projected_conv(case, inputs), ROUNDED, ROUNDED)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("k", [4, 5])
def test_in_proj_with_a_bias_and_a_window_too_wide_go_in_two_parts(rows, k):
    case = make_case([1] * rows, d=128, k=k, dtype=HALF).without_conv_bias()
    run = projected_conv(case, 256, has_bias=k == 4)
    assert_twins_agree(case, run, ROUNDED, ROUNDED)


def test_padding_rows_behind_in_proj_disturb_nobody():
    case = make_case([1] * 40, slots=[0, 3, 0, 1, *[0] * 36], d=128, dtype=HALF)
    run = projected_conv(case, 256)
    assert_twins_agree(case, lambda ops, c: run(ops, c)[[1, 3]], ROUNDED, ROUNDED)


SIZE_7B = {"d": 8192, "n": 16, "k": 4}


@pytest.mark.parametrize("run", [pytest.param(f, marks=gpu) for f in (conv_prefill, scan_prefill)])
@pytest.mark.parametrize("lengths", [[1], [300], [2048], [1, 700, 3, 64]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_prefill_kernel_is_its_reference_at_7b_shapes(run, lengths, dtype):
    tolerance = LONG if dtype == torch.float32 else ROUNDED
    assert_twins_agree(make_case(lengths, dtype=dtype, **SIZE_7B), run, tolerance, LONG)


@pytest.mark.parametrize("run", [pytest.param(f, marks=gpu) for f in (conv_step, scan_step)])
@pytest.mark.parametrize("rows", [1, 8, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_kernel_is_its_reference_at_7b_shapes(run, rows, dtype):
    tolerance = EXACT if dtype == torch.float32 else ROUNDED
    assert_twins_agree(make_case([1] * rows, dtype=dtype, **SIZE_7B), run, tolerance)


@pytest.mark.parametrize("rows", [pytest.param(rows, marks=gpu) for rows in (1, 2, 8, 33, 64)])
def test_the_convolution_behind_in_proj_is_its_reference_at_7b_shapes(rows):
    case = make_case([1] * rows, dtype=HALF, **SIZE_7B)
    assert_twins_agree(case, projected_conv(case, 4096), ROUNDED, ROUNDED)


@pytest.mark.parametrize(
    "outputs,inputs",
    [
        pytest.param(*shape, marks=gpu)
        for shape in [(16384, 4096), (4096, 8192), (288, 8192), (8192, 256), (65024, 4096)]
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 8, 33, 64])
def test_a_product_is_right_at_7b_shapes(rows, outputs, inputs):
    assert_products_agree(outputs, inputs, torch.bfloat16, rows=rows)
