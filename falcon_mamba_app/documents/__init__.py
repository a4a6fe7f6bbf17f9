"""Documents as text: a file's bytes in, its words and its number of pages out.

`reading` gives the bytes to a process of their own, `worker`, whose time, memory and output are
limited (`limits`): a hostile file costs a sentence and nothing else. `kinds` decides what a file
is, `formats/` has one reader for each kind. It knows no model, no page and no HTTP.
"""
