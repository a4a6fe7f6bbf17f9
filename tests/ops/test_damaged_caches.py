"""Compiled kernels on disk that somebody damaged: compiled anew, with one warning."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
from numba import njit

from falcon_mamba_app.ops.cpu.machine_code import keep_checked
from falcon_mamba_app.ops.damage import CheckedFiles
from falcon_mamba_app.ops.triton.machine_code import check_what_triton_keeps, checked_manager


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def randomise(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def flip_a_bit(path: Path) -> None:
    """Of the machine code itself, which would be run as it is."""
    data = bytearray(path.read_bytes())
    data[-len(data) // 3] ^= 1
    path.write_bytes(data)


def replace_by_a_folder(path: Path) -> None:
    """As good as a file that may not be read, for root too."""
    path.unlink()
    path.mkdir()


DAMAGES = [truncate, empty, randomise, flip_a_bit, replace_by_a_folder]


def add(a, b):
    return a + b


def times(a, b):
    return a * b


def freshly_started(folder: Path, files: CheckedFiles):
    """Both kernels as a new process has them."""
    return [keep_checked(njit(cache=True)(kernel), folder, files) for kernel in (add, times)]


def run(kernels) -> list[int]:
    return [kernel(6, 7) for kernel in kernels]


def num_hits(kernels) -> int:
    return sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels)


@pytest.fixture
def files():
    return CheckedFiles("numba's compiled kernels")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_kernel_of_numba_is_compiled_anew_with_one_warning(
    tmp_path, files, caplog, damage
):
    assert run(freshly_started(tmp_path, files)) == [13, 42]
    kept = sorted(tmp_path.glob("*.kernel"))
    assert len(kept) == 2
    for path in kept:
        damage(path)
    with caplog.at_level(logging.WARNING):
        again = freshly_started(tmp_path, files)
        assert run(again) == [13, 42] and num_hits(again) == 0
    assert len(caplog.messages) == 1 and "compiled anew" in caplog.messages[0]
    assert len(list(tmp_path.glob("*.damaged"))) == 2
    healed = freshly_started(tmp_path, files)
    assert run(healed) == [13, 42] and num_hits(healed) == 2


def test_a_folder_that_became_a_file_costs_a_warning_and_no_start(tmp_path, files, caplog):
    folder = tmp_path / "kernels"
    folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert run(freshly_started(folder, files)) == [13, 42]
    assert [message for message in caplog.messages if "cannot be kept" in message]
    assert len(caplog.messages) <= 2


@pytest.fixture
def triton_folder(tmp_path, monkeypatch):
    from triton import knobs

    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    return tmp_path


def put_kernel(manager) -> None:
    """A kernel as Triton keeps it."""
    group = {
        name: manager.put(content, name)
        for name, content in (("k.json", '{"num_warps": 4}'), ("k.cubin", bytes(range(256))))
    }
    manager.put_group("k.json", group)


@pytest.mark.parametrize("name", ["k.json", "k.cubin", "__grp__k.json", "k.cubin.sealed"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_kernel_of_triton_is_not_found_and_said_once(
    triton_folder, files, caplog, damage, name
):
    make = checked_manager(files)
    key = hashlib.sha256(b"a kernel").hexdigest()
    manager = make(key)
    put_kernel(manager)
    assert sorted(manager.get_group("k.json")) == ["k.cubin", "k.json"]
    damage(triton_folder / key / name)
    with caplog.at_level(logging.WARNING):
        assert make(key).get_group("k.json") is None
        assert make(key).get_group("k.json") is None
    assert len(caplog.messages) == 1 and "compiled anew" in caplog.messages[0]
    put_kernel(make(key))
    assert make(key).get_group("k.json") is not None
    assert make(key).get_file("k.cubin") is not None


def test_kernels_from_before_are_compiled_once_more_without_a_word(triton_folder, files, caplog):
    from triton.runtime.cache import FileCacheManager

    put_kernel(FileCacheManager("before"))
    with caplog.at_level(logging.WARNING):
        assert checked_manager(files)("before").get_group("k.json") is None
    assert not caplog.messages


def test_a_kernel_whose_folder_became_a_file_is_compiled_anew(triton_folder, files, caplog):
    (triton_folder / "key").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert checked_manager(files)("key").get_group("k.json") is None
    put_kernel(checked_manager(files)("key"))
    assert checked_manager(files)("key").get_group("k.json") is not None
    assert len(caplog.messages) == 1


def test_where_triton_cannot_keep_anything_it_keeps_it_for_this_process(
    tmp_path, monkeypatch, caplog
):
    from triton import knobs

    file = tmp_path / "cache"
    file.write_text("not a folder")
    monkeypatch.setattr(knobs.cache, "dir", str(file))
    monkeypatch.setattr(knobs.cache, "manager_class", None)
    with caplog.at_level(logging.WARNING):
        check_what_triton_keeps()
    assert "cannot be kept" in caplog.text
    put_kernel(knobs.cache.manager_class("key"))
    assert knobs.cache.manager_class("key").get_group("k.json") is not None
