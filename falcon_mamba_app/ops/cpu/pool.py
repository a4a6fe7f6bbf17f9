"""Threads that stay, and share a kernel's channels among them.

A job is a compiled kernel's address, sets of arguments with which it is called one after the other,
and a number of channels. The calling thread and the workers take parts of it from a counter in
shared memory; the job is done when every part is. So a thread that the system has put aside holds
nobody up but for its own part, and where no worker comes (in a forked process, say) the caller does
it all.

A worker looks for parts without Python's lock. After looking in vain for a while it sleeps: beside
a browser on the same cores, threads that never sleep make everything slower.
"""

from __future__ import annotations

import threading
import time
from _thread import LockType, allocate_lock
from typing import Any, NamedTuple

import numpy as np

from falcon_mamba_app.ops.cpu.pool_kernels import (
    BOX_BYTES,
    alone,
    begin,
    finish,
    may_sleep,
    work,
)

MAX_WORKERS = 63  # a bit each
# A look takes up to 50 ns: 0.3 ms, longer than what lies between two products of a large model.
NUM_LOOKS = 6_000
SLEEP_S = 2e-5


class Sets(NamedTuple):
    """The sets of arguments of a job, one behind the other in memory."""

    address: int
    num_bytes: int  # of each
    number: int


class Pool:
    """Workers that are started when they are first asked for, and live as long as the process."""

    def __init__(self) -> None:
        self._memory = np.zeros(2 * BOX_BYTES, np.uint8)
        self._box = -(-self._memory.ctypes.data // BOX_BYTES) * BOX_BYTES
        self._gates: list[LockType] = []
        self._in_use = allocate_lock()

    def run(
        self,
        function: int,
        sets: Sets,
        num_channels: int,
        *,
        part: int,
        num_threads: int,
    ) -> None:
        """Call the kernel for all channels, `part` at a time and then with each set of arguments,
        on so many threads. The first to come has the workers; whoever calls meanwhile is alone.
        """
        job = (function, *sets, num_channels, part)
        if num_threads < 2 or num_channels <= part or not self._in_use.acquire(blocking=False):
            alone(*job)
            return
        try:
            while len(self._gates) < min(num_threads - 1, MAX_WORKERS):
                self._start_worker()
            sleepers = begin(self._box, *job)
            if sleepers:
                for number, gate in enumerate(self._gates):
                    if sleepers >> number & 1:
                        gate.release()
            while not finish(self._box, NUM_LOOKS):
                time.sleep(SLEEP_S)  # the system has put a worker aside; let it have this core
        finally:
            self._in_use.release()

    def _start_worker(self) -> None:
        gate = allocate_lock()
        gate.acquire()
        bit = 1 << len(self._gates)
        self._gates.append(gate)
        arguments = (self._box, self._memory, bit, gate)
        threading.Thread(target=_live, args=arguments, name="kernels", daemon=True).start()


def _live(box: int, memory: Any, bit: int, gate: LockType) -> None:
    """A worker. It holds the memory that the box lies in."""
    while True:
        work(box, NUM_LOOKS)
        if may_sleep(box, bit):
            gate.acquire()


POOL = Pool()
