"""Falcon Mamba and Mamba-1, as one module that carries its state.

It knows no file, no sequence and no command line; it computes with the operations it is given.
`config` holds the dimensions (with the letters of all docstrings), `batch` is the input of a pass,
`linear` the matrices, and `falcon_mamba` the layers. `in_8bit` and `in_blocks` exchange the
matrices of a model for packed ones.
"""
