"""Weights between two checkpoints."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from training import average


@pytest.fixture
def pair(tmp_path):
    for name, value in (("old", 1.0), ("new", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {"a": torch.full((2, 3), value, dtype=torch.bfloat16), "b": torch.tensor([value])}
        save_file(tensors, tmp_path / name / average.WEIGHTS)
    return tmp_path


def test_weights_between_two_checkpoints_keep_their_sorts_and_their_files(pair):
    average.main([*(str(pair / name) for name in ("old", "new", "mean")), "--share", "0.25"])
    found = load_file(pair / "mean" / average.WEIGHTS)
    assert {name: t.dtype for name, t in found.items()} == {"a": torch.bfloat16, "b": torch.float32}
    assert found["a"].eq(1.5).all() and found["b"].item() == 1.5
    assert (pair / "mean" / "config.json").read_text() == "{}"


def test_checkpoints_of_other_shapes_have_nothing_between(pair):
    save_file({"a": torch.zeros(5)}, pair / "new" / average.WEIGHTS)
    with pytest.raises(ValueError, match="other names or shapes"):
        average.average(pair / "old", pair / "new", pair / "mean", 0.5)


def test_a_share_is_a_part_of_one(pair, capsys):
    with pytest.raises(SystemExit):
        average.main(["old", "new", "mean", "--share", "1.5"])
    assert "want a number from 0 to 1" in capsys.readouterr().err
