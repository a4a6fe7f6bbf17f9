"""Disks without room: a start finds another place, or says in a sentence that there is none."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.ops.damage import CheckedFiles
from falcon_mamba_app.ops.triton.machine_code import checked_manager
from falcon_mamba_app.temporary import folder_with_room, keep_temporary_files

ROOT = Path(__file__).parents[2]


@contextmanager
def no_room():
    """Every write to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def chosen(monkeypatch):
    """What is chosen is undone afterwards."""
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", ""))
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    return monkeypatch


def full_folder(tmp_path: Path) -> Path:
    """No file can be made in it, by root neither."""
    folder = tmp_path / "full"
    folder.write_text("")
    return folder


def test_temporary_files_go_to_memory_where_their_folder_is_full(tmp_path, chosen, caplog):
    memory = tmp_path / "memory"
    memory.mkdir()
    chosen.setattr(tempfile, "tempdir", str(full_folder(tmp_path)))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            keep_temporary_files(memory)
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(memory)
    assert len(caplog.messages) == 1 and "no room for temporary files" in caplog.messages[0]


def test_a_folder_with_room_is_used_without_a_word(tmp_path, chosen, caplog):
    chosen.setattr(tempfile, "tempdir", str(tmp_path))
    keep_temporary_files(tmp_path / "memory")
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path)
    assert not caplog.messages


def test_without_room_anywhere_a_sentence_says_what_is_wanted(tmp_path, chosen):
    with no_room():
        assert folder_with_room(tmp_path) is None
        with pytest.raises(SettingsError, match="has room for temporary files, 1 MiB .* TMPDIR"):
            keep_temporary_files(tmp_path)


def test_a_start_without_room_ends_with_that_sentence():
    result = subprocess.run(
        [sys.executable, "app.py", "--model", "nano", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: no folder has room") and result.stderr.count("\n") == 1


def test_kernels_that_find_no_room_are_not_kept_and_nothing_is_left_of_them(tmp_path, caplog):
    """numba's are in memory already when they are written."""
    files = CheckedFiles("numba's compiled kernels")
    with caplog.at_level(logging.WARNING), no_room():
        for number in range(3):
            files.write(tmp_path / f"{number}.kernel", bytes(1_000))
    assert len(caplog.messages) == 1 and "cannot be kept" in caplog.messages[0]
    assert not list(tmp_path.iterdir())
    files.write(tmp_path / "kernel", b"later")
    assert files.read(tmp_path / "kernel") == b"later"


def test_a_kernel_of_triton_whose_disk_fills_meanwhile_goes_elsewhere(
    tmp_path, monkeypatch, caplog
):
    """Triton reads back from disk what it compiled: it must be somewhere."""
    from triton import knobs

    full = tmp_path / "full"
    monkeypatch.setattr(knobs.cache, "dir", str(full))
    manage = checked_manager(CheckedFiles("Triton's compiled kernels"))
    first, second = manage("first"), manage("second")
    kept = {"k.json": first.put('{"num_warps": 4}', "k.json")}
    _fill(full)
    with caplog.at_level(logging.WARNING):
        kept = {"k.json": first.put('{"num_warps": 4}', "k.json"), "k.cubin": first.put(b"1", "k")}
        first.put_group("k.json", kept)
        second.put(b"2", "k.cubin")
        assert manage("third").put(b"3", "k.cubin")
    assert knobs.cache.dir != str(full)
    assert manage("first").get_group("k.json") == kept
    assert Path(kept["k.json"]).read_text() == '{"num_warps": 4}'
    assert Path(manage("second").get_file("k.cubin")).read_bytes() == b"2"
    assert len(caplog.messages) == 1 and "cannot be kept" in caplog.messages[0]


def test_a_kernel_whose_folder_cannot_be_made_goes_elsewhere(tmp_path, monkeypatch, caplog):
    from triton import knobs

    monkeypatch.setattr(knobs.cache, "dir", str(full_folder(tmp_path)))
    manage = checked_manager(CheckedFiles("Triton's compiled kernels"))
    with caplog.at_level(logging.WARNING):
        for key in ("first", "second"):
            assert Path(manage(key).put(b"1", "k.cubin")).read_bytes() == b"1"
    assert len(caplog.messages) == 1 and "cannot be kept" in caplog.messages[0]


def _fill(folder: Path) -> None:
    """Nothing can be written there any more, by root neither."""
    folder.rename(folder.with_name("before"))
    folder.write_text("")
