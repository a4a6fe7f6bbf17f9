"""The 7B without a GPU: which file it becomes, what is said beforehand, and when it is refused."""

from __future__ import annotations

import logging

import pytest

from falcon_mamba_app.checkpoint import locate, without_gpu
from falcon_mamba_app.checkpoint.gguf.write import write_gguf
from falcon_mamba_app.checkpoint.placement import Machine, Placement, Room, decide
from falcon_mamba_app.errors import CheckpointError
from falcon_mamba_app.settings import ModelSettings
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.fake_hub import HUB_ID, FakeHub

ROOM = Room(max_running=1, max_prefill_tokens=8)
LAPTOP = Machine(free_host_bytes=12 * 10**9)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serves a small file in place of the published one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(without_gpu, "read_bytes_per_s", lambda: 21e9)
    name = "falcon-mamba-7b-instruct-q4_k_m"
    known = locate.KnownModel(name, f"{HUB_ID}:Q4_0", 8_192)
    monkeypatch.setitem(locate.KNOWN_MODELS, name, known)
    source = tmp_path / "source"
    source.mkdir()
    write_gguf(make_tiny_checkpoint(tmp_path / "original"), source / "tiny-Q4_0.gguf", "Q4_0")
    with FakeHub(source, tmp_path / "hub", monkeypatch) as hub:
        yield hub


def placed(machine: Machine, **asked: str) -> Placement:
    return decide(
        ModelSettings(model="falcon-mamba-7b-instruct", kernels="reference", **asked), ROOM, machine
    )


def test_the_7b_becomes_its_published_file_and_the_speed_to_expect_is_told_first(hub, caplog):
    caplog.set_level(logging.INFO)
    placement = placed(LAPTOP)
    assert hub.downloaded == ["tiny-Q4_0.gguf"] and placement.checkpoint.gguf is not None
    assert placement.quantization is not None and placement.quantization.kind == "Q4_0"
    told = next(r.message for r in caplog.records if "published file in 4 bits" in r.message)
    assert "4.2 GB" in told and "reads 21 GB/s" in told and "up to 5.0 tokens a second" in told


def test_too_little_memory_is_told_before_anything_is_downloaded(hub):
    with pytest.raises(CheckpointError, match=r"needs 5\.5 GB of memory .* and 3\.0 GB are free"):
        placed(Machine(free_host_bytes=3 * 10**9))
    assert not hub.downloaded


@pytest.mark.parametrize(
    ("model", "machine", "quantization"),
    [
        ("nano", LAPTOP, "auto"),
        ("falcon-mamba-7b-instruct", Machine(), "auto"),
    ],
)
def test_other_requests_are_left_as_they_are(model, machine, quantization):
    asked = ModelSettings(model=model, quantization=quantization)
    assert without_gpu.published_file(asked, machine.free_host_bytes) is asked
    revised = ModelSettings(model="falcon-mamba-7b-instruct", revision="main")
    assert without_gpu.published_file(revised, LAPTOP.free_host_bytes) is revised


def test_the_free_memory_is_the_least_of_machine_and_container(tmp_path, monkeypatch):
    whole = without_gpu.free_host_bytes()
    if whole is None:
        pytest.skip("this system does not tell its free memory")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(without_gpu, "LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n")
    assert without_gpu.free_host_bytes() > 10**6
    limit.write_text("1000000\n")
    assert without_gpu.free_host_bytes() == 10**6


def test_the_bandwidth_is_that_of_a_machine():
    assert 1e7 < without_gpu.read_bytes_per_s() < 1e13
