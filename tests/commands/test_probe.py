"""`falcon-mamba probe`: what it writes, and how it goes on."""

import csv
import json
import logging

import pytest

from falcon_mamba_app.commands import probe as command
from falcon_mamba_app.commands import run
from falcon_mamba_app.errors import InvalidRequest, SettingsError
from falcon_mamba_app.lab.intervals import wilson


@pytest.fixture(autouse=True)
def logging_as_it_was():
    yield
    logging.disable(logging.NOTSET)


def probe(out, *options):
    small = ("--model", "nano", "--device", "cpu", "--lengths", "200", "--depths", "0,100")
    return run("probe", [*small, "--seed", "3", "--out", str(out), *options], {})


def test_a_probe_that_was_broken_off_goes_on_from_its_file(tmp_path, capsys, monkeypatch):
    out, table = tmp_path / "probe.json", tmp_path / "cells.csv"

    def break_off(event):
        raise KeyboardInterrupt  # as Ctrl-C does

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(command, "_tell", break_off)
        probe(out, "--per-cell", "1")
    first = json.loads(out.read_text("utf-8"))
    assert len(first["answers"]) == 1

    assert probe(out, "--per-cell", "2", "--csv", str(table)) == 0
    told = capsys.readouterr()
    assert "going on after 1 of 4 answers" in told.out
    assert told.err.count("200 tokens") == 3  # none is asked twice
    record = json.loads(out.read_text("utf-8"))
    assert record["answers"][0] == first["answers"][0] and len(record["answers"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"probe.json", "cells.csv"}
    for cell in record["cells"]:
        assert cell["asked"] == 2
        assert (cell["low"], cell["high"]) == pytest.approx(wilson(cell["right"], 2), abs=1e-4)
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert [(row["length"], row["asked"]) for row in rows] == [("200", "2"), ("200", "2")]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--lengths", "1x"), "--lengths"),
        (("--lengths", "100"), "length is 100"),
        (("--depths", "half"), "--depths"),
        (("--depths", "150"), "depth is 1.5"),
        (("--per-cell", "0"), "per_cell is 0"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(tmp_path, options, named):
    with pytest.raises((SettingsError, InvalidRequest), match=named):
        probe(tmp_path / "probe.json", *options)
    assert list(tmp_path.iterdir()) == []
