"""The operations as Triton kernels for one GPU. It knows no layer and no sequence.

`ops` is the `Ops` made of them. The recurrence: `conv`, `scan`, `norm`, and for a step the fused
`in_proj_step` and `x_proj_step`. Matrices: `linear` with `linear_kernels`; in 8 bits `linear_8bit`
and `few_rows_8bit`; in 4 bits `linear_4bit` with `linear_4bit_kernels`, and `few_rows_4bit` with
`few_rows_4bit_kernel` and `decode_4bit`; `tiles` has their sizes, and `gluon_parts` what those in
Gluon share. Sampling: `sampling`, `top_k_top_p`, `later_filters`, `allowed_tokens`, `next_token`.
Below all: `math`, `overlap` of kernels, `device` (its features), `machine_code` (kept on disk).
"""
