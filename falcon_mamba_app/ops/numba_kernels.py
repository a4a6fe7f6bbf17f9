"""The operations for the CPU, each one call into a compiled kernel.

The contracts are `reference.py`'s. Outputs are new tensors; states are read and written once, where
they lie. A step runs on the calling thread alone, since at 10 µs an operation a second thread would
arrive too late; a prompt's channels are split over torch's number of threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from threading import Thread

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_mamba_app.ops import Ops
from falcon_mamba_app.ops import numba_compiled as kernels

logger = logging.getLogger(__name__)

KINDS = {torch.float32: kernels.FLOAT32, torch.bfloat16: kernels.BFLOAT16}

# A thread takes 50 µs to start; below this many values (t·d) it would not pay.
MIN_VALUES_PER_THREAD = 16_384

# Rows up to which our matrix product on one thread is faster than torch's on two (fp32), or as fast
# (bf16, which torch multiplies by instructions of its own).
MAX_ROWS = {torch.float32: 8, torch.bfloat16: 4}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` for two dimensions; few rows take our kernel, many torch's."""
    b, num_inputs = x.shape
    if b > MAX_ROWS[x.dtype]:
        return F.linear(x, weight, bias)
    num_outputs = weight.shape[0]
    y = torch.empty((b, num_outputs), dtype=x.dtype)
    _check(weight)
    kernels.linear(
        x.data_ptr(), _row_stride(x), weight.data_ptr(), _address(bias), b, num_inputs,
        num_outputs, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    return y


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, out_dtype: torch.dtype) -> Tensor:
    """`reference.rms_norm`, for x of one or two dimensions."""
    num_rows, num_columns = x.shape
    y = torch.empty((num_rows, num_columns), dtype=out_dtype)
    inputs = x.data_ptr(), _row_stride(x), num_rows, num_columns, eps, y.data_ptr()
    kinds = KINDS[x.dtype], KINDS[out_dtype]
    if weight is None:
        kernels.rms_norm(*inputs, *kinds)
    else:
        kernels.rms_norm_weighted(*inputs, weight.data_ptr(), *kinds, KINDS[weight.dtype])
    return y


def conv_step(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_states: Tensor, slots: Tensor
) -> Tensor:
    """`reference.conv_step`."""
    (b, d), k = x.shape, weight.shape[0]
    y = torch.empty((b, d), dtype=x.dtype)
    _check(weight, conv_states, slots)
    assert x.dtype == weight.dtype == conv_states.dtype, (x.dtype, weight.dtype, conv_states.dtype)
    kernels.conv_step(
        x.data_ptr(), _row_stride(x), weight.data_ptr(), _address(bias), conv_states.data_ptr(),
        slots.data_ptr(), b, d, k, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    return y


def conv_prefill(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """`reference.conv_prefill`."""
    (t, d), k = x.shape, weight.shape[0]
    y = torch.empty((t, d), dtype=x.dtype)
    _check(weight, conv_states, slots)
    assert x.dtype == weight.dtype == conv_states.dtype, (x.dtype, weight.dtype, conv_states.dtype)

    run = partial(
        kernels.conv_prefill,
        x.data_ptr(), _row_stride(x), weight.data_ptr(), _address(bias), conv_states.data_ptr(),
        slots.data_ptr(), query_starts.data_ptr(), len(slots), d, k, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    _split_channels(run, t, d)
    return y


def scan_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
) -> Tensor:
    """`reference.scan_step`."""
    (b, d), n = x.shape, A.shape[0]
    y = torch.empty((b, d), dtype=x.dtype)
    _check(A, D, dt_bias, ssm_states, slots)
    kernels.scan_step(
        x.data_ptr(), _row_stride(x), dt.data_ptr(), _row_stride(dt), A.data_ptr(),
        B.data_ptr(), _row_stride(B), C.data_ptr(), _row_stride(C), D.data_ptr(),
        z.data_ptr(), _row_stride(z), dt_bias.data_ptr(), ssm_states.data_ptr(),
        slots.data_ptr(), b, d, n, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    return y


def scan_prefill(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    ssm_states: Tensor,
    slots: Tensor,
    query_starts: Tensor,
) -> Tensor:
    """`reference.scan_prefill`."""
    (t, d), n = x.shape, A.shape[0]
    y = torch.empty((t, d), dtype=x.dtype)
    _check(A, D, dt_bias, ssm_states, slots)

    run = partial(
        kernels.scan_prefill,
        x.data_ptr(), _row_stride(x), dt.data_ptr(), _row_stride(dt), A.data_ptr(),
        B.data_ptr(), _row_stride(B), C.data_ptr(), _row_stride(C), D.data_ptr(),
        z.data_ptr(), _row_stride(z), dt_bias.data_ptr(), ssm_states.data_ptr(),
        slots.data_ptr(), query_starts.data_ptr(), len(slots), d, n, y.data_ptr(), KINDS[x.dtype],
    )  # fmt: skip
    _split_channels(run, t, d)
    return y


def _split_channels(run: Callable[[int, int], None], t: int, d: int) -> None:
    """run(low, high) over all channels, on as many threads as torch uses and as pays."""
    num_parts = min(torch.get_num_threads(), d // kernels.BLOCK, t * d // MIN_VALUES_PER_THREAD)
    if num_parts < 2:
        run(0, d)
        return
    # Whole blocks, so that the threads never write to the same cache line.
    blocks = -(-d // kernels.BLOCK)
    edges = [min(part * blocks // num_parts * kernels.BLOCK, d) for part in range(num_parts + 1)]
    threads = [Thread(target=run, args=edges[part : part + 2]) for part in range(1, num_parts)]
    for thread in threads:
        thread.start()
    run(edges[0], edges[1])
    for thread in threads:
        thread.join()


def _row_stride(x: Tensor) -> int:
    row, column = x.stride()
    assert column == 1, f"the channels of a row must lie together, strides are {x.stride()}"
    return row


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _check(*tensors: Tensor) -> None:
    """What the kernels walk along without strides."""
    assert all(tensor.is_contiguous() for tensor in tensors), [x.stride() for x in tensors]


NUMBA = Ops(
    name="numba",
    linear=linear,
    rms_norm=rms_norm,
    conv_prefill=conv_prefill,
    conv_step=conv_step,
    scan_prefill=scan_prefill,
    scan_step=scan_step,
)
