"""The operations as Triton kernels for one GPU; `ops.TritonOps` names the file of each one."""
