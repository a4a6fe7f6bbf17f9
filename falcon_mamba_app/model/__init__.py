"""Falcon Mamba and Mamba-1, as one module that carries its state.

It knows no file, no sequence and no command line, and computes by the operations it is given.
`config` is the shape (with the letters that all docstrings use), `linear` the matrices, in 4 bits
too, `falcon_mamba` the layers.
"""
