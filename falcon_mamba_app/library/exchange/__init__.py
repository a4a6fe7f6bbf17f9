"""Conversations as files: written, and read from our own and from other programs' exports.

`writing` has the formats that leave, `reading` knows those that come, `drafts` makes trees of what
was read, `archive` is the zip of a tree with its states, and `moving` the way between a file, the
library and the states. Files come from anywhere: what is damaged, endless or hostile costs a
sentence.
"""

from falcon_mamba_app.library.exchange.archive import bundle, unbundle
from falcon_mamba_app.library.exchange.reading import read
from falcon_mamba_app.library.exchange.writing import as_json, as_jsonl, as_markdown

__all__ = ["as_json", "as_jsonl", "as_markdown", "bundle", "read", "unbundle"]
