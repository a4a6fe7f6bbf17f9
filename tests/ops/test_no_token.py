"""Logits that are no numbers choose no token, and the rows beside them choose as if alone."""

from __future__ import annotations

import math
from itertools import cycle

import pytest
import torch

from falcon_mamba_app.engine.runner.penalties import pack_params
from falcon_mamba_app.ops.cpu.sampling import sample as numba_sample
from falcon_mamba_app.ops.reference.sampling import NO_TOKEN
from falcon_mamba_app.ops.reference.sampling import sample as reference_sample
from falcon_mamba_app.ops.triton.ops import TRITON
from falcon_mamba_app.protocol import SamplingParams

ON_GPU = torch.cuda.is_available()
SAMPLERS = {
    "reference": (reference_sample, "cpu"),
    "numba": (numba_sample, "cpu"),
    "triton": (TRITON.sample, "cuda" if ON_GPU else "cpu"),
}
NAN, INF = math.nan, math.inf
# Triton's interpreter computes in numpy, which warns of what a device does without a word.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
VOCABULARY = 2_500  # two parts of the kernels'
PARAMS = {
    "greedy": SamplingParams(temperature=0.0),
    "sampled": SamplingParams(temperature=0.8),
    "filtered": SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.05, typical_p=0.9),
}


def spoiled(place: int, value: float) -> torch.Tensor:
    row = torch.linspace(-3.0, 3.0, VOCABULARY)
    row[place] = value
    return row


UNUSABLE = {
    "NaN first": spoiled(0, NAN),
    "NaN last": spoiled(VOCABULARY - 1, NAN),
    "NaN in the middle": spoiled(1_234, NAN),
    "infinity": spoiled(2_222, INF),
    "all NaN": torch.full((VOCABULARY,), NAN),
    "all infinity": torch.full((VOCABULARY,), INF),
    "all -infinity": torch.full((VOCABULARY,), -INF),
}


@pytest.mark.parametrize("sample,device", SAMPLERS.values(), ids=SAMPLERS)
def test_a_row_without_numbers_gets_no_token_and_its_neighbours_get_theirs(sample, device):
    good = torch.linspace(3.0, -3.0, VOCABULARY)
    rows = [
        (good, PARAMS["sampled"]),
        *zip(UNUSABLE.values(), cycle(PARAMS.values()), strict=False),
    ]
    rows.append((good, PARAMS["filtered"]))
    logits = torch.stack([row for row, _ in rows]).to(device)
    params = pack_params([params for _, params in rows], [0.5] * len(rows)).to(device)
    alone = [sample(logits[i : i + 1], params[i : i + 1]).item() for i in (0, -1 + len(rows))]
    assert all(0 <= token < VOCABULARY for token in alone)
    found = sample(logits, params).tolist()
    assert found == [alone[0], *[NO_TOKEN] * len(UNUSABLE), alone[1]]


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("sample,device", SAMPLERS.values(), ids=SAMPLERS)
def test_tokens_of_minus_infinity_are_only_never_chosen(sample, device, params):
    """A grammar masks so."""
    logits = torch.full((1, VOCABULARY), -INF, device=device)
    logits[0, 1_700] = 0.5
    assert sample(logits, pack_params([params], [0.5]).to(device)).tolist() == [1_700]
