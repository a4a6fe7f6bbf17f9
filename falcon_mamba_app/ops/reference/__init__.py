"""Every operation in plain torch for any device, and the packed forms of a matrix.

`recurrence` has norm, convolution and scan, `sampling` the choice of the next token,
`allowed_tokens` its mask, and `next_token` carries it from step to step. `matrix` is the forms of a
matrix as a product reads it; `weight_8bit`, `weight_4bit` and `weight_ggml` are the packed ones.
"""
