"""The repository as a Hugging Face Space: what the platform reads of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.version import Version

from falcon_mamba_app.checkpoint.locate import DEFAULT_ON_GPU, KNOWN_MODELS

ROOT = Path(__file__).parents[2]
# The keys and the values that the platform knows:
# https://huggingface.co/docs/hub/spaces-config-reference
# fmt: off
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version", "app_file",
    "suggested_hardware", "app_port", "base_path", "fullWidth", "header", "short_description",
    "models", "datasets", "tags", "thumbnail", "pinned", "hf_oauth", "disable_embedding",
    "startup_duration_timeout", "custom_headers", "preload_from_hub", "license",
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# fmt: on
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")


@pytest.fixture(scope="module")
def card():
    return SpaceCard.load(ROOT / "README.md").data.to_dict()


def requirement(name: str, file: str = "requirements.txt") -> Requirement:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    given = (line.partition("  #")[0].strip() for line in lines if not line.startswith("#"))
    return next(r for r in map(Requirement, filter(None, given)) if r.name == name)


def test_the_hub_reads_the_front_matter(card):
    assert card["sdk"] == "gradio"
    assert set(card) <= KEYS
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["header"] in ("mini", "default")
    assert len(card["short_description"]) <= 60
    assert re.fullmatch(r"[1-9][0-9]*[mh]", card["startup_duration_timeout"])


def test_the_space_runs_the_gradio_that_is_tested(card):
    assert card["sdk_version"] in requirement("gradio").specifier
    lowest = min(Version(s.version) for s in requirement("gradio").specifier if s.operator == ">=")
    assert Version(card["sdk_version"]).release[:2] == lowest.release[:2]


def test_the_space_runs_a_python_that_zero_gpu_has(card):
    """Without the key it would be 3.10, which transformers no longer runs on."""
    assert card["python_version"] == "3.12"


def test_torch_is_one_that_zero_gpu_has_and_the_app_accepts():
    (pin,) = requirement("torch", "pre-requirements.txt").specifier
    assert pin.operator == "==" and pin.version in ZERO_GPU_TORCH
    assert pin.version in requirement("torch").specifier


def test_the_platforms_own_package_is_not_asked_for():
    """The platform installs `spaces` itself, and pins it."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not re.search(r"^spaces\b", text, flags=re.MULTILINE)


def test_app_and_model_are_there(card):
    assert (ROOT / card["app_file"]).is_file()
    default = KNOWN_MODELS[DEFAULT_ON_GPU].hub_id
    assert card["models"] == card["preload_from_hub"] == [default]
