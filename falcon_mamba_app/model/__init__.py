"""Falcon Mamba and Mamba-1, as one module that carries its state.

It knows no file, no sequence and no command line; it computes with the operations it is given.
`config` holds the dimensions (with the letters of all docstrings), `linear` the matrices, also
in 4 bits, and `falcon_mamba` the layers.
"""
