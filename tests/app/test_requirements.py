"""The lists of versions: what the requirements allow at the least, and the same bytes for all."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# Their oldest builds bring gigabytes of CUDA; what runs with them is said in the README.
NOT_STARTED = {"torch"}


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    wanted = [Requirement(line.partition("#")[0]) for line in lines if line[:1] not in ("", "#")]
    return {canonicalize_name(one.name): one for one in wanted}


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pins = [line.split(" ")[0].partition("==") for line in lines if "==" in line and line[0] != " "]
    return {canonicalize_name(name): Version(version) for name, _, version in pins}


def lowest(requirement: Requirement) -> Version:
    (low,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return Version(low)


def test_each_lower_bound_is_the_version_that_is_started_once():
    """Three of them could once not be installed at all: gradio asked for newer ones."""
    started = pinned("constraints-lowest.txt")
    for name, requirement in requirements().items():
        if name not in NOT_STARTED:
            low = lowest(requirement).release
            assert started[name].release[: len(low)] == low, name


def test_the_constraints_pin_everything_that_is_required_within_its_range_and_with_hashes():
    pins = pinned("constraints.txt")
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(pins[name]), name
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text  # wherever it is installed from, the bytes are the same
