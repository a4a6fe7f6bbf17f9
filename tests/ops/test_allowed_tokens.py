"""A mask of bits excludes tokens in every implementation, and hides no logit that is no number."""

from __future__ import annotations

import math

import pytest
import torch

from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.cpu.ops import NUMBA
from falcon_mamba_app.ops.triton.ops import TRITON

ON_GPU = torch.cuda.is_available()
IMPLEMENTATIONS = {
    "reference": (REFERENCE.allow_only, "cpu"),
    "numba": (NUMBA.allow_only, "cpu"),
    "triton": (TRITON.allow_only, "cuda" if ON_GPU else "cpu"),
}
# Triton's interpreter computes in numpy, which warns of what a device does without a word.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def packed(is_allowed: torch.Tensor) -> torch.Tensor:
    """Rows of truth values as the bits of int32 words."""
    padding = -is_allowed.shape[1] % 32
    bits = torch.nn.functional.pad(is_allowed.long(), (0, padding)).unflatten(1, (-1, 32))
    words = (bits << torch.arange(32)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 450, 2_500])
@pytest.mark.parametrize("allow_only,device", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_excluded_tokens_become_minus_infinity_and_the_others_stay(allow_only, device, vocab_size):
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(3, vocab_size, generator=generator)
    is_allowed = torch.rand(3, vocab_size, generator=generator) < 0.3
    is_allowed[1] = True
    expected = logits.masked_fill(~is_allowed, -math.inf)
    found = logits.to(device)
    allow_only(found, packed(is_allowed).to(device))
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("allow_only,device", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_rows_of_a_larger_step_are_reached_and_their_neighbours_are_not(allow_only, device):
    """A captured step has more rows than the requests in it."""
    step = torch.zeros(4, 70, device=device)
    allow_only(step[:2], torch.zeros(2, 3, dtype=torch.int32, device=device))
    assert step[:2].eq(-math.inf).all() and step[2:].eq(0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("allow_only,device", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_an_excluded_logit_that_is_no_number_is_still_seen(allow_only, device, value):
    logits = torch.zeros(1, 40, device=device)
    logits[0, 35] = value
    allow_only(logits, torch.tensor([[1, 0]], dtype=torch.int32, device=device))
    assert logits[0, 35].isnan() and logits[0, 0] == 0
