"""What 8 and 4 bits cost the bundled model, on a conversation of the kind it was made for."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy import carried, divergence
from benchmarks.lib.models import bundled_model, in_form
from benchmarks.quantization import FORMS, measure, real_text
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.cpu.ops import NUMBA


@pytest.fixture(scope="module")
def rows():
    model = bundled_model(REFERENCE, torch.device("cpu"), torch.float32)
    return {row["weights"]: row for row in measure(model, real_text(), FORMS)}


def test_the_text_is_long_enough_and_known_to_the_model(rows):
    assert len(real_text()) > 500
    assert rows["none"]["loss"] < 3.5  # of 9.0 for a guess among 8,192 tokens


def test_8_bits_change_next_to_nothing(rows):
    """A sixtieth of what nf4 does, head and table of embeddings included."""
    assert 0 < rows["int8"]["mean_kl"] <= 0.001 and rows["int8"]["worst_kl"] < 0.05
    assert rows["int8"]["agreement"] >= 0.99
    assert rows["int8"]["loss"] < rows["none"]["loss"] + 0.01
    assert rows["int8"]["bytes"] < 0.3 * rows["none"]["bytes"]  # of fp32


@pytest.mark.parametrize(("form", "most"), [("Q8_0", 0.001), ("Q4_K", 0.08)])
def test_the_blocks_of_a_gguf_file_cost_what_their_bits_promise(rows, form, most):
    assert 0 < rows[form]["mean_kl"] <= most
    assert rows[form]["bytes"] < (0.6 if form == "Q8_0" else 0.4) * rows["none"]["bytes"]


@pytest.mark.parametrize("form", ["int8", "Q4_K"])
def test_the_cpu_s_kernels_add_nothing_to_it(form):
    """The same matrices in fp32 products, and where they lie: prompts and steps."""
    read = []
    for ops in (REFERENCE, NUMBA):
        model = in_form(bundled_model(ops, torch.device("cpu"), torch.float32), form)
        read.append(carried(model, real_text()[:24]))
    kl = divergence(*read)
    assert kl.mean() < 1e-6 and kl.max() < 1e-5


@pytest.mark.parametrize(("form", "most"), [("nf4", 0.12), ("fp4", 0.22)])
def test_the_divergence_stays_below_its_bound(rows, form, most):
    """A model of 24.5 M parameters has little to spare; larger ones lose far less."""
    for name in (form, f"{form} double"):
        assert 0.01 < rows[name]["mean_kl"] < most
        assert rows[name]["loss"] < rows["none"]["loss"] + 0.2
        assert rows[name]["agreement"] > 0.7


def test_double_quantisation_costs_next_to_nothing(rows):
    for form in ("nf4", "fp4"):
        assert rows[f"{form} double"]["mean_kl"] < 1.05 * rows[form]["mean_kl"]
        assert rows[f"{form} double"]["bytes"] < rows[form]["bytes"]


def test_nf4_is_nearer_than_fp4(rows):
    assert rows["nf4"]["mean_kl"] < rows["fp4"]["mean_kl"]
