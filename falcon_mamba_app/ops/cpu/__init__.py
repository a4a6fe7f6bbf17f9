"""The operations, compiled by numba for the CPU they run on. It knows no layer and no sequence.

`ops` is the `Ops` made of them. `kernels` has the recurrence's inner loops, `sampling` the choice
of the next token. `products` multiplies matrices: in full precision by `dense` (`dense_kernels`)
or, for prompts, oneDNN; packed ones by `ggml` (`ggml_kernels`, `ggml_numbers`, and for
bitsandbytes' 4 bits `code_kernels`, `code_vectors`; `ggml_unpacking` for prompts) and by
`quantized_kernels`. `step` (`step_kernels`) joins a step's products with what is
around them. `pool` and `pool_kernels` divide the work among threads, `threads` says how many. Below
all: `tensors`, and what numba lacks in `scalars`, `vectors` (on `llvm`) and `atomics`. `compiled`
and `machine_code` keep what was compiled on disk, `warm_up` compiles it in advance.
"""
