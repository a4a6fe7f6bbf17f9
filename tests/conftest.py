"""What must be settled before any test module is imported, and what several of them share."""

from __future__ import annotations

import os

# As app.py does: several test processes share few cores. Read once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "100")

import pytest
import torch

# Triton reads this once, when it is first imported, by us or by another library.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def poisoned_outputs(monkeypatch):
    """New tensors hold NaN, so that what a kernel leaves unwritten is seen."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", poisoned)
