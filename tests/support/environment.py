"""What libraries read once, when they are first imported: settled before any test module is."""

from __future__ import annotations

import os

# As app.py does: several test processes share few cores. Read once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "100")

import torch

# Triton reads this once, when it is first imported, by us or by another library.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
