"""What the threads of `pool` do without Python's lock."""

from __future__ import annotations

from falcon_mamba_app.ops.cpu.atomics import (
    atomic_add,
    atomic_and,
    atomic_exchange,
    atomic_load,
    atomic_or,
    atomic_store,
    call,
    pause,
)
from falcon_mamba_app.ops.cpu.compiled import compiled
from falcon_mamba_app.ops.cpu.kernels import INT64, OPTIONS, pointer

# Where each number lies in the shared memory, in bytes. Those that change are on cache lines of
# their own.
TICKET, DONE, ASLEEP, JOB, BOX_BYTES = 0, 128, 256, 384, 512
FUNCTION, ARGUMENTS, SET_BYTES, NUM_SETS, NUM_CHANNELS, PART = range(6)  # of the job, in numbers
# A ticket holds the number of parts, and below it the number of the next one.
NEXT_BITS = 32
NEXT = (1 << NEXT_BITS) - 1


@compiled(OPTIONS)
def take_part(box):
    """Do the next part of the job, if there is one."""
    if _is_taken(atomic_load(box + TICKET)):
        return False
    ticket = atomic_add(box + TICKET, 1)
    if _is_taken(ticket):
        return False
    job = pointer(box + JOB, INT64)
    low = (ticket & NEXT) * job[PART]
    high = min(low + job[PART], job[NUM_CHANNELS])
    for number in range(job[NUM_SETS]):
        call(job[FUNCTION], job[ARGUMENTS] + number * job[SET_BYTES], low, high)
    atomic_add(box + DONE, 1)
    return True


@compiled(OPTIONS)
def _is_taken(ticket):
    return ticket & NEXT >= ticket >> NEXT_BITS


@compiled(OPTIONS)
def work(box, num_looks):
    """Take parts until there was none for so many looks."""
    looks = 0
    while looks < num_looks:
        if take_part(box):
            looks = 0
        else:
            looks += 1
            pause()


@compiled(OPTIONS)
def begin(box, function, arguments, set_bytes, num_sets, num_channels, part):
    """Put up a job. Returns the workers that have to be woken, a bit each."""
    job = pointer(box + JOB, INT64)
    job[FUNCTION], job[ARGUMENTS] = function, arguments
    job[SET_BYTES], job[NUM_SETS] = set_bytes, num_sets
    job[NUM_CHANNELS], job[PART] = num_channels, part
    atomic_store(box + DONE, 0)
    atomic_store(box + TICKET, -(-num_channels // part) << NEXT_BITS)
    return atomic_exchange(box + ASLEEP, 0)


@compiled(OPTIONS)
def finish(box, num_looks):
    """Take parts until there are none, and wait for those that others took. False: after so many
    looks not all were done.
    """
    while take_part(box):
        pass
    num_parts = atomic_load(box + TICKET) >> NEXT_BITS
    for _ in range(num_looks):
        if atomic_load(box + DONE) == num_parts:
            return True
        pause()
    return False


@compiled(OPTIONS)
def may_sleep(box, bit):
    """Say that a worker sleeps from now on. False: there is a part after all."""
    atomic_or(box + ASLEEP, bit)
    if _is_taken(atomic_load(box + TICKET)):
        return True
    # Whoever took the bit away wakes this worker.
    return atomic_and(box + ASLEEP, ~bit) & bit == 0


@compiled(OPTIONS)
def alone(function, arguments, set_bytes, num_sets, num_channels, part):
    for low in range(0, num_channels, part):
        for number in range(num_sets):
            high = min(low + part, num_channels)
            call(function, arguments + number * set_bytes, low, high)
