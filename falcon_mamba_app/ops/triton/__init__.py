"""The operations as Triton kernels for one GPU; `ops.TritonOps` says which file has which."""
