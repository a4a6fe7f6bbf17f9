"""The operations, compiled by numba for the CPU they run on; `ops.CpuOps` calls them."""
