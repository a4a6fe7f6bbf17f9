"""`--kernels library`: the libraries' functions under our contract, against the reference."""

from __future__ import annotations

import logging
import sys
from itertools import pairwise

import pytest
import torch

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops import REFERENCE
from falcon_mamba_app.ops.mamba_ssm import MambaSsmOps
from falcon_mamba_app.ops.select import select_ops
from tests.ops.test_triton import (
    EXACT,
    conv_prefill,
    conv_step,
    make_case,
    scan_prefill,
    scan_step,
)
from tests.support import library_stand_ins
from tests.support.checkpoints import make_model
from tests.support.engine_fixtures import generate, make_engine, ours, random_prompt

CUDA = torch.device("cuda")


@pytest.fixture
def library(monkeypatch):
    library_stand_ins.install(monkeypatch)
    return MambaSsmOps()


def assert_twins_agree(ops, case, run):
    mine, theirs = case.with_states_of_its_own(), case.with_states_of_its_own()
    torch.testing.assert_close(run(ops, mine), run(REFERENCE, theirs), **EXACT)
    torch.testing.assert_close(mine.conv_states[1:], theirs.conv_states[1:], **EXACT)
    torch.testing.assert_close(mine.ssm_states[1:], theirs.ssm_states[1:], **EXACT)


def without_history(case, rows):
    """The case with the states of these rows empty."""
    case = case.with_states_of_its_own()
    case.ssm_states[case.slots[rows]] = 0
    return case


@pytest.mark.parametrize("lengths", [[1], [2], [3], [9], [5, 1, 7]], ids=str)
@pytest.mark.parametrize("run", [conv_prefill, scan_prefill])
def test_prompts_are_read_as_the_reference_reads_them(library, run, lengths):
    case = make_case(lengths, d=24)
    assert_twins_agree(library, case, run)
    assert_twins_agree(library, without_history(case, [0]), run)


@pytest.mark.parametrize("run", [conv_step, scan_step])
def test_steps_advance_as_the_reference_s_do(library, run):
    case = make_case([1] * 5, d=24, slots=[4, 3, 6, 1, 0])
    assert_twins_agree(library, case, run)


def test_only_a_sequence_without_history_is_given_to_the_scan_that_starts_from_nothing(
    monkeypatch,
):
    """It ignores the state, so a later chunk must never reach it."""
    read = []

    def scan(u, *args, **kwargs):
        read.append(u.shape[-1])
        return library_stand_ins.selective_scan_fn(u, *args, **kwargs)

    library_stand_ins.install(monkeypatch)
    name = "mamba_ssm.ops.selective_scan_interface"
    monkeypatch.setattr(sys.modules[name], "selective_scan_fn", scan)
    library = MambaSsmOps()
    case = without_history(make_case([12], d=24), [0])
    for start, end in pairwise([0, 5, 6, 12]):
        scan_prefill(library, case.tokens(start, end))
    assert read == [5]


@pytest.mark.parametrize("d,k", [(20, 4), (24, 5)])
def test_a_convolution_that_theirs_refuses_is_ours(library, d, k):
    assert_twins_agree(library, make_case([3, 2], d=d, k=k), conv_prefill)
    assert_twins_agree(library, make_case([1, 1], d=d, k=k), conv_step)


def test_an_engine_over_the_libraries_answers_as_over_the_reference(library):
    def answer(ops):
        engine = make_engine(ours(make_model("falcon_mamba"), ops), max_prefill_tokens=4)
        first = generate(engine, random_prompt(11), session_id="s")
        history = random_prompt(11) + first + random_prompt(6, seed=1)
        return first, generate(engine, history, session_id="s")

    assert answer(library) == answer(REFERENCE)


def test_reading_prompts_is_not_captured_since_it_waits_for_the_device(library):
    assert library.can_capture_steps and not library.can_capture_prompts
    assert library.name == "library"


@pytest.mark.parametrize("missing", ["causal_conv1d", "selective_scan_cuda"])
def test_without_the_packages_one_line_says_what_to_install(monkeypatch, missing):
    library_stand_ins.install(monkeypatch)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(SettingsError, match="pip install --no-build-isolation causal-conv1d mamba"):
        select_ops(CUDA, "library")


def test_a_gpu_gets_the_libraries_only_when_asked(monkeypatch):
    library_stand_ins.install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert select_ops(CUDA, "library").name == "library"
    assert select_ops(CUDA, "auto").name == "triton"


def test_a_card_older_than_turing_runs_plain_torch_and_is_told_why(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with caplog.at_level(logging.WARNING):
        assert select_ops(CUDA, "auto") is REFERENCE
    assert "compute capability 7.0, the Triton kernels need 7.5" in caplog.text
    for kernels in ("triton", "library"):
        with pytest.raises(SettingsError, match="need 7.5 or newer; use reference"):
            select_ops(CUDA, kernels)
