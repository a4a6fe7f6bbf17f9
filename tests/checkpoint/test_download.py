"""A large file of the hub comes in as many connections, and starts, as it takes."""

from __future__ import annotations

import hashlib
import logging

import pytest

from falcon_mamba_app.checkpoint import download, hub
from falcon_mamba_app.checkpoint.hub import RemoteFile
from falcon_mamba_app.checkpoint.progress import LINE_EVERY_S, ProgressLines
from falcon_mamba_app.errors import CheckpointError
from tests.support.fake_hub import COMMIT, HUB_ID, FakeHub

NAME, PIECE = "weights.safetensors", 2**16
WEIGHTS = bytes(range(256)) * 4_000


@pytest.fixture
def fake(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / NAME).write_bytes(WEIGHTS)
    (source / "config.json").write_text("{}")
    monkeypatch.setattr(download, "PIECE_BYTES", PIECE)
    with FakeHub(source, tmp_path / "hub", monkeypatch) as fake:
        yield fake


def fetch(told: list[tuple[float, str]]) -> None:
    files = [RemoteFile(NAME, len(WEIGHTS))]
    hub.fetch_files(HUB_ID, COMMIT, files, lambda share, what: told.append((share, what)))


def parts(tmp_path) -> list[int]:
    return [path.stat().st_size for path in (tmp_path / "hub").rglob("*.part")]


def result(tmp_path) -> bytes:
    (path,) = (tmp_path / "hub").glob(f"models--*/snapshots/*/{NAME}")
    return path.read_bytes()


def test_a_connection_that_breaks_is_made_again_for_the_rest(fake, tmp_path):
    fake.break_off(3 * PIECE, 0, 2 * PIECE)
    told: list[tuple[float, str]] = []
    fetch(told)
    assert fake.ranges == [None, *(f"bytes={pieces * PIECE}-" for pieces in (3, 3, 5))]
    assert result(tmp_path) == WEIGHTS and not parts(tmp_path)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert told[-1][1].startswith("downloading weights, ")


def test_the_next_start_asks_for_what_an_earlier_one_did_not_get(fake, tmp_path):
    fake.break_off(4 * PIECE, *[0] * (download.MAX_TRIES - 1))
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch([])
    assert parts(tmp_path) == [4 * PIECE]
    told: list[tuple[float, str]] = []
    fetch(told)
    assert fake.ranges[-1] == f"bytes={4 * PIECE}-" and result(tmp_path) == WEIGHTS
    assert told[0][0] > 4 * PIECE / len(WEIGHTS)


def test_what_is_there_is_not_asked_for_again(fake, tmp_path):
    fetch([])
    fetch([])
    assert fake.ranges == [None]


def test_bytes_that_are_not_those_of_the_hub_are_deleted_in_a_sentence(fake, tmp_path):
    """The rest of another file, or a disk that lost some."""
    blobs = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part").write_bytes(b"x" * 1_000)
    with pytest.raises(CheckpointError, match="arrived damaged and was deleted"):
        fetch([])
    assert not parts(tmp_path)
    fetch([])
    assert result(tmp_path) == WEIGHTS


@pytest.mark.parametrize("extra", [0, 7])
def test_a_file_that_is_whole_but_for_its_name_is_taken_and_a_longer_one_is_not(
    fake, tmp_path, extra
):
    blobs = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part"
    part.write_bytes(WEIGHTS + b"x" * extra)
    fetch([])
    assert result(tmp_path) == WEIGHTS and len(fake.ranges) == (1 if extra else 0)


def test_a_long_step_says_in_the_log_now_and_then_how_far_it_is(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    tell = ProgressLines(lambda: now[0])
    for step in range(100):
        now[0] = step * LINE_EVERY_S / 10
        tell(step / 100, "reading x.gguf")
    lines = [record.message for record in caplog.records]
    assert lines == [f"reading x.gguf: {share} %" for share in range(10, 100, 10)]
