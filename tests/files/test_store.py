"""Files of callers: in memory and in a folder, by the same tests."""

from __future__ import annotations

import pytest

from falcon_mamba_app.errors import InvalidRequest, NotFound, StoreUnavailable
from falcon_mamba_app.files import store as store_module
from falcon_mamba_app.files.store import FileStore


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return tmp_path / "files" if request.param == "folder" else None


@pytest.fixture
def store(folder):
    return FileStore(folder)


def test_what_goes_in_comes_out_for_its_owner_only(store):
    file = store.add("ada", b"\x00data", name="../../x", purpose="batch")
    assert store.read("ada", file.id) == b"\x00data"
    assert store.of("ada") == [file] and store.of("bob") == []
    for ask in (store.get, store.read, store.remove):
        with pytest.raises(NotFound):
            ask("bob", file.id)
    store.remove("ada", file.id)
    with pytest.raises(NotFound):
        store.read("ada", file.id)


def test_a_file_that_grows_is_shown_when_it_is_complete(store):
    file = store.begin("ada", name="out", purpose="results")
    store.append(file.id, b"one ")
    store.append(file.id, b"two")
    assert store.of("ada") == []
    store.complete(file.id)
    (shown,) = store.of("ada")
    assert (shown.num_bytes, store.read("ada", file.id)) == (7, b"one two")


def test_files_in_a_folder_outlive_the_process_damaged_ones_are_left(tmp_path, caplog):
    first = FileStore(tmp_path)
    whole = first.add("ada", b"data", name="x", purpose="batch")
    growing = first.begin("ada", name="y", purpose="results")
    first.append(growing.id, b"half")
    (tmp_path / "file_bad.json").write_text("{")
    second = FileStore(tmp_path)
    assert second.of("ada") == [whole]
    assert second.read("ada", growing.id) == b"half"
    second.append(growing.id, b" more")
    assert second.complete(growing.id).num_bytes == 9
    assert "file_bad" in caplog.text
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("file_*.data"))


def test_an_id_tells_the_copy_that_made_it(folder):
    file = FileStore(folder, copy="2").add("ada", b"x", name="x", purpose="batch")
    assert file.id.startswith("file_") and file.id.endswith("-2")


def test_a_file_goes_when_its_time_is_over(folder):
    now_s = 1_000.0
    store = FileStore(folder, clock=lambda: now_s)
    file = store.add("ada", b"data", name="x", purpose="batch", lasts_s=60)
    assert store.of("ada") == [file] and file.expires_s == 1_060
    now_s = 1_060.0
    assert store.of("ada") == []
    assert folder is None or not list(folder.iterdir())


def test_an_owners_files_are_bounded_in_number_and_size(store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_FILES", 2)
    monkeypatch.setattr(store_module, "MAX_OWNER_BYTES", 10)
    file = store.add("ada", b"12345678", name="x", purpose="batch")
    with pytest.raises(InvalidRequest, match="8 bytes and 3 more"):
        store.add("ada", b"123", name="x", purpose="batch")
    with pytest.raises(InvalidRequest, match="delete some"):
        store.append(file.id, b"123")
    store.add("ada", b"1", name="x", purpose="batch")
    with pytest.raises(InvalidRequest, match="2 files"):
        store.add("ada", b"", name="x", purpose="batch")
    store.add("bob", b"123", name="x", purpose="batch")


def test_memory_is_bounded_for_all_together(monkeypatch):
    monkeypatch.setattr(store_module, "MAX_BYTES_IN_MEMORY", 10)
    store = FileStore(None)
    store.add("ada", b"12345678", name="x", purpose="batch")
    with pytest.raises(InvalidRequest, match="8 bytes of memory"):
        store.add("bob", b"123", name="x", purpose="batch")


def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be kept just now"):
        FileStore(tmp_path / "file" / "below").add("ada", b"x", name="x", purpose="batch")
