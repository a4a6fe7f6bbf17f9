"""The threads that share a kernel's channels."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from falcon_mamba_app.ops.cpu.atomics import address_of_kernel
from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import INT64, OPTIONS, pointer
from falcon_mamba_app.ops.cpu.pool import Pool, Sets
from falcon_mamba_app.ops.cpu.pool_kernels import ASLEEP


@compiled(OPTIONS)
def count(args, low, high):
    """A kernel: one more at each of its channels."""
    numbers = pointer(pointer(args, INT64)[0], INT64)
    for i in range(low, high):
        numbers[i] += 1


def counted(pool: Pool, num_channels: int, *, part: int, num_threads: int, times: int) -> set[int]:
    """What stands at the channels of two sets after so many jobs."""
    counters = np.zeros((2, num_channels), np.int64)
    arguments = np.array([[row.ctypes.data, 0] for row in counters])
    sets = Sets(arguments.ctypes.data, arguments.strides[0], len(arguments))
    function = address_of_kernel(count)
    for _ in range(times):
        pool.run(function, sets, num_channels, part=part, num_threads=num_threads)
    return set(counters.flatten().tolist())


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize(("num_channels", "part"), [(1, 1), (7, 2), (64, 1), (1_000, 16), (5, 9)])
def test_every_channel_is_done_once(num_channels, part, num_threads):
    pool = Pool()
    times = 300
    done = counted(pool, num_channels, part=part, num_threads=num_threads, times=times)
    assert done == {times}


def test_several_callers_do_not_mix_their_jobs():
    pool, found = Pool(), []

    def call(num_channels: int) -> None:
        found.append(counted(pool, num_channels, part=8, num_threads=3, times=300))

    callers = [threading.Thread(target=call, args=(count,)) for count in (100, 200, 300)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [{300}] * 3


def test_workers_sleep_when_there_is_nothing_to_do_and_wake_up_again():
    pool = Pool()
    for _ in range(3):
        assert counted(pool, 64, part=1, num_threads=3, times=1) == {1}
        deadline = time.monotonic() + 30
        asleep = ctypes.c_int64.from_address(pool._box + ASLEEP)
        while asleep.value != 0b11 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert asleep.value == 0b11


FORKED = """
import os
from tests.ops.test_cpu_pool import Pool, counted
pool = Pool()
assert counted(pool, 64, part=1, num_threads=3, times=1) == {1}
child = os.fork()
found = counted(pool, 64, part=1, num_threads=3, times=20)
if child == 0:
    os._exit(0 if found == {20} else 1)
assert os.waitpid(child, 0)[1] == 0 and found == {20}
print("equal")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_which_has_no_workers_does_it_all():
    result = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "equal", result.stderr[-2000:]
